// SPDX-License-Identifier: Apache-2.0

package link

import (
	"math"
	"math/rand/v2"
	"testing"

	"sluice/pkg/fec"
)

// equalLanes are n lanes of one rate.
func equalLanes(n int) []Lane {
	lanes := make([]Lane, n)
	for i := range lanes {
		lanes[i].Rate = 1e9
	}
	return lanes
}

// dealtTo returns the lane of a turn.
func dealtTo(w wheel, turn int) int {
	lane, _ := w.lane(turn)
	return lane
}

// TestWheelHitsGroupsEqually: of the symbols of any group, each lane has its share, to
// within two, whatever the number of groups is; and so it has of any 100 turns in a row.
func TestWheelHitsGroupsEqually(t *testing.T) {
	for n := 1; n <= MaxLanes; n++ {
		w := newWheel(equalLanes(n), 0)
		for _, rows := range []int{fec.K, 100} {
			for group := range MaxGroups {
				got := make([]int, n)
				for row := range rows {
					got[dealtTo(w, row+group)]++
				}
				for lane, k := range got {
					if math.Abs(float64(k)-float64(rows)/float64(n)) > 2 {
						t.Fatalf("group %d: lane %d of %d has %d of %d", group, lane+1, n, k, rows)
					}
				}
			}
		}
	}
}

// TestPlacesAreDealtByGroup: with the default geometry, and others, each group of the second span loses its share with a lane, source and repair
// symbols, within two and one.
func TestPlacesAreDealtByGroup(t *testing.T) {
	for _, groups := range []int{992, 157, 64, 62, 2, 1} {
		g, err := fec.New(int64(2*groups*fec.K)*1408, 1408, groups)
		if err != nil {
			t.Fatal(err)
		}
		span, w := g.Span(1), newWheel(equalLanes(2), 1)
		source, repair := make([]int, span.D), make([]int, span.D)
		for i := range span.N {
			source[i%span.D] += dealtTo(w, sourcePlace(span, i).turn)
		}
		for group := range span.D {
			for row := range 20 {
				repair[group] += dealtTo(w, repairPlace(span, row, group).turn)
			}
			if d := source[group] - fec.K/2; d < -2 || d > 2 {
				t.Fatalf("%d groups: lane 2 has %d source symbols of group %d", groups, source[group], group)
			}
			if d := repair[group] - 10; d < -1 || d > 1 {
				t.Fatalf("%d groups: lane 2 has %d of 20 repair symbols of group %d", groups, repair[group], group)
			}
		}
	}
}

// TestWheelMovesOn: of lanes of one rate, no lane has a turn again before every other
// had it. In any two rounds in a row a dead lane costs nothing.
func TestWheelMovesOn(t *testing.T) {
	for n := 1; n <= MaxLanes; n++ {
		for first := range 3 {
			for turn := range wheelSize {
				seen := make([]bool, n)
				for round := first; round < first+n; round++ {
					seen[dealtTo(newWheelCached(n, round), turn)] = true
				}
				for lane, ok := range seen {
					if !ok {
						t.Fatalf("%d lanes, rounds from %d: lane %d never has turn %d", n, first, lane+1, turn)
					}
				}
			}
		}
	}
}

var wheels = map[[2]int]wheel{}

func newWheelCached(n, round int) wheel {
	w, ok := wheels[[2]int{n, round}]
	if !ok {
		w = newWheel(equalLanes(n), round)
		wheels[[2]int{n, round}] = w
	}
	return w
}

// TestWheelOfRates: shares are those of the rates; and a lane that alone is dead, or
// alone lives, costs no more rounds than its share over the smallest one says.
func TestWheelOfRates(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 1))
	for range 20 {
		lanes := make([]Lane, 2+random.IntN(MaxLanes-1))
		var total float64
		for i := range lanes {
			lanes[i].Rate = 1e8 + random.Int64N(1e9)
			total += float64(lanes[i].Rate)
		}
		least := math.Inf(1)
		for _, l := range lanes {
			least = min(least, float64(l.Rate)/total)
		}
		counts := make([]int, len(lanes))
		w := newWheel(lanes, 0)
		for turn := range wheelSize {
			counts[dealtTo(w, turn)]++
		}
		for i, l := range lanes {
			share := float64(l.Rate) / total
			if got := float64(counts[i]) / wheelSize; math.Abs(got-share) > 0.001 {
				t.Errorf("seed %d: lane %d of %v has %.4f, want %.4f", seed, i+1, lanes, got, share)
			}
			if n, most := roundsWithout(lanes, i), 1+int(math.Ceil(share/least+0.01)); n > most {
				t.Errorf("seed %d: without lane %d of %v it takes %d rounds, want %d", seed, i+1, lanes, n, most)
			}
		}
	}
}

// roundsWithout returns after how many rounds every turn was another lane's.
func roundsWithout(lanes []Lane, dead int) int {
	left := make([]int, wheelSize)
	for turn := range left {
		left[turn] = turn
	}
	round := 0
	for ; len(left) > 0 && round < wheelSize/100; round++ {
		w, kept := newWheel(lanes, round), left[:0]
		for _, turn := range left {
			if dealtTo(w, turn) == dead {
				kept = append(kept, turn)
			}
		}
		left = kept
	}
	return round
}

// TestWheelOfExtremes: a lane however slow beside one however fast has something, and
// nothing is out of range.
func TestWheelOfExtremes(t *testing.T) {
	lanes := []Lane{{Rate: 1e6}, {Rate: math.MaxInt64}, {Rate: 1}}
	for _, round := range []int{0, 1, 1 << 40} {
		w := newWheel(lanes, round)
		counts := make([]int, len(lanes))
		for turn := range wheelSize {
			lane, depth := w.lane(turn)
			if depth < 0 || depth >= 1 {
				t.Fatalf("depth %v", depth)
			}
			counts[lane]++
		}
		if counts[0] < 1 || counts[2] < 1 || counts[1] < wheelSize-10 {
			t.Errorf("round %d: %v", round, counts)
		}
	}
	w := newWheel(make([]Lane, 2), 0) // unlimited
	if w.ends[0] != wheelSize/2 {
		t.Errorf("two unlimited lanes: %v", w.ends)
	}
}

// BenchmarkDeal is what dealing a symbol costs before it is copied.
func BenchmarkDeal(b *testing.B) {
	w := newWheel(equalLanes(2), 1)
	sum := 0
	for i := range b.N {
		lane, _ := w.lane(i & 1023)
		sum += lane
	}
	if sum > b.N {
		b.Fatal(sum)
	}
}
