// SPDX-License-Identifier: Apache-2.0

package link

// windowBits is how far back a counter is remembered. At 10 Gbit/s and MTU 1500
// it is 150 ms of link: deeper than any reordering seen (research: 1,472), and
// 16 KiB a session.
const windowBits = 1 << 17

const (
	wordBits    = 64
	windowWords = windowBits / wordBits
	// windowReach is what is certainly still remembered: the word that holds the
	// largest counter is cleared when it is entered, so one word is given up.
	windowReach = windowBits - wordBits
)

// window remembers which send counters were seen, in the manner of RFC 6479: a
// ring of bits that advances by whole words and so never shifts.
type window struct {
	bits [windowWords]uint64
	max  uint64 // largest counter seen; meaningful when any is true
	any  bool
}

// verdict is what the window says of a counter.
type verdict uint8

const (
	fresh verdict = iota // never seen: it is remembered now
	seen                 // seen before: a duplicate
	stale                // too far behind to know
)

// mark looks a counter up and remembers it. Only counters of authenticated
// datagrams may be marked: a forged one would push the window ahead.
func (w *window) mark(counter uint64) verdict {
	switch {
	case !w.any:
		w.any, w.max = true, counter
	case counter > w.max:
		w.advance(counter)
	case w.max-counter >= windowReach:
		return stale
	}
	word, bit := &w.bits[counter/wordBits%windowWords], uint64(1)<<(counter%wordBits)
	if *word&bit != 0 {
		return seen
	}
	*word |= bit
	return fresh
}

// advance clears the words between the old and the new largest counter.
func (w *window) advance(counter uint64) {
	from, to := w.max/wordBits, counter/wordBits
	for i := range min(to-from, windowWords) {
		w.bits[(to-i)%windowWords] = 0
	}
	w.max = counter
}
