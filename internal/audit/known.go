// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strings"

	"sluice/internal/trust"
	"sluice/pkg/envelope"
	"sluice/pkg/mofn"
)

// The part of an export that is about trust over time (docs/spec/audit.md section 6).
const (
	dirTrust  = "trust"
	dirChain  = "trust/chain"
	dirOrders = "trust/orders"

	// maxVersions, maxChain and maxOrderFile are the caps of a bulletin (docs/spec/bulletin.md section 1), and mofn.MaxOrders is the
	// fourth.
	maxVersions  = 256
	maxChain     = 32 << 20
	maxOrderFile = 64 << 10
)

func versionFile(n int) string { return fmt.Sprintf("%06d.json", n) }

// known is what an export says of trust over time: each version verified against the one before it, each order filed under its id.
type known struct {
	chain  []*trust.Store
	orders map[string]orderFile
}

// orderFile is an order whose signature nobody has looked at yet.
type orderFile struct{ d *envelope.DSSE }

func (f orderFile) verify(root string, under *trust.Store) (mofn.SignedOrder, error) {
	o, err := under.Policy.VerifyOrder(root, f.d.Payload, trust.SignaturesOf(f.d), envelope.PAE(f.d.PayloadType, f.d.Payload))
	o.Under = under.Object.Version
	return o, err
}

func parseOrder(data []byte) (id string, f orderFile, err error) {
	d, err := envelope.ParseDSSE(data, maxOrderFile)
	if err != nil {
		return "", f, err
	}
	if d.PayloadType != mofn.OrderPayloadType {
		return "", f, fmt.Errorf("payload type %q is not %q: this is no order", d.PayloadType, mofn.OrderPayloadType)
	}
	return mofn.OrderID(d.Payload), orderFile{d}, nil
}

// readKnown reads trust/ of an export whose first trust object has that fingerprint; nil when it has none, as those of before.
func readKnown(root *os.Root, first string) (*known, error) {
	if _, err := root.Lstat(dirTrust); errors.Is(err, os.ErrNotExist) {
		return nil, nil //nolint:nilnil // an export of before has nothing to say
	}
	k := &known{orders: map[string]orderFile{}}
	if err := k.readChain(root, first); err != nil {
		return nil, err
	}
	return k, k.readOrders(root)
}

// listDir names the files of a directory of the export, sorted; one that is missing is empty, because what copies files may leave empty
// directories behind.
func listDir(root *os.Root, dir string, most int) ([]string, error) {
	for _, d := range []string{path.Dir(dir), dir} {
		info, err := root.Lstat(d)
		if errors.Is(err, os.ErrNotExist) {
			return nil, nil
		}
		if err != nil {
			return nil, fmt.Errorf("audit verify: %w", err)
		}
		if !info.IsDir() {
			return nil, fmt.Errorf("%w: %s is no directory", ErrFormat, d)
		}
	}
	f, err := root.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("audit verify: %w", err)
	}
	defer f.Close()
	names, err := f.Readdirnames(most + 1)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%s: %w", dir, err)
	}
	if len(names) > most {
		return nil, fmt.Errorf("%w: more than %d files in %s", ErrFormat, most, dir)
	}
	slices.Sort(names)
	return names, nil
}

func (k *known) readChain(root *os.Root, first string) error {
	names, err := listDir(root, dirChain, maxVersions)
	if err != nil {
		return err
	}
	if len(names) == 0 {
		return fmt.Errorf("%w: %s/%s is missing", ErrTampered, dirChain, versionFile(1))
	}
	size := 0
	for i, name := range names {
		where := dirChain + "/" + name
		if want := versionFile(i + 1); name != want {
			return fmt.Errorf("%w: %s stands where %s belongs: that one is missing, or this one is none of the chain", ErrTampered, where, want)
		}
		data, err := readFile(root, where, maxTrust)
		if err != nil {
			return err
		}
		if size += len(data); size > maxChain {
			return fmt.Errorf("%w: the versions in %s have more than %d bytes together", ErrFormat, dirChain, maxChain)
		}
		if err := k.append(data); err != nil {
			return fmt.Errorf("%w: %s: %w", ErrTampered, where, err)
		}
		if fp := hex.EncodeToString(k.chain[0].Fingerprint[:]); fp != first {
			return fmt.Errorf("%w: %s is the trust object %s, and %s is %s", ErrTampered, where, fp, fileTrust, first)
		}
	}
	return nil
}

// append takes the next version of the chain.
func (k *known) append(data []byte) error {
	if len(k.chain) > 0 {
		d, err := envelope.ParseDSSE(data, maxTrust)
		if err != nil {
			return err
		}
		before := k.chain[len(k.chain)-1].Object
		if _, err := mofn.VerifyTrust(before, d.Payload, trust.SignaturesOf(d), envelope.PAE(d.PayloadType, d.Payload)); err != nil {
			return err
		}
	}
	st, err := trust.Parse(data)
	if err != nil {
		return err
	}
	if v := st.Object.Version; len(k.chain) == 0 && v != 1 {
		return fmt.Errorf("it is version %d, and a chain begins with 1", v)
	}
	k.chain = append(k.chain, st)
	return nil
}

func (k *known) readOrders(root *os.Root) error {
	names, err := listDir(root, dirOrders, mofn.MaxOrders)
	if err != nil {
		return err
	}
	for _, name := range names {
		where := dirOrders + "/" + name
		data, err := readFile(root, where, maxOrderFile)
		if err != nil {
			return err
		}
		id, o, err := parseOrder(data)
		if err != nil {
			return fmt.Errorf("%w: %s: %w", ErrTampered, where, err)
		}
		if id+".json" != name {
			return fmt.Errorf("%w: %s holds the order %s", ErrTampered, where, id)
		}
		k.orders[id] = o
	}
	return nil
}

// telling is what the events of a log say of trust, as far as an export has to know which files are of its checkpoint's time.
type telling struct {
	versions, orders map[string]bool // fingerprints and ids that it names
	effect           string          // fingerprint of the version that took effect last; "" the first
}

func (t *telling) note(action, digest string) {
	switch {
	case action == ActionTrustArrived:
		t.versions[digest] = true
	case action == ActionTrustEffect:
		t.effect = digest
	case strings.HasPrefix(action, ActionOrder+" "):
		t.orders[digest] = true
	case action == ActionRestored:
		*t = *newTelling()
	}
}

func newTelling() *telling { return &telling{versions: map[string]bool{}, orders: map[string]bool{}} }

// copyTrust copies chain and orders of the state beside the events. They were read after the events were, and a daemon may have taken more
// in meanwhile: what came after the checkpoint is left out, and counted. A version or an order is put on stable storage before the log says so.
func copyTrust(root *os.Root, state string, first []byte, t *telling) (later int, err error) {
	src, err := os.OpenRoot(state)
	if errors.Is(err, os.ErrNotExist) {
		return 0, nil // no process has opened this state since there is trust over time
	}
	if err != nil {
		return 0, fmt.Errorf("trust: %w", err)
	}
	defer src.Close()
	for _, dir := range []string{dirTrust, dirChain, dirOrders} {
		if err := root.Mkdir(dir, 0o700); err != nil {
			return 0, fmt.Errorf("export: %w", err)
		}
	}
	effect, later, err := copyChain(root, src, first, t)
	if err != nil {
		return 0, err
	}
	more, err := copyOrders(root, src, effect, t)
	return later + more, err
}

func copyChain(root, src *os.Root, first []byte, t *telling) (effect *trust.Store, later int, err error) {
	chain, last := [][]byte{first}, 1
	if effect, err = trust.Parse(first); err != nil {
		return nil, 0, err
	}
	for n := 2; n <= maxVersions; n++ {
		data, err := readFile(src, "chain/"+versionFile(n), maxTrust)
		if errors.Is(err, os.ErrNotExist) {
			break
		}
		if err != nil {
			return nil, 0, err
		}
		st, err := trust.Parse(data)
		if err != nil {
			return nil, 0, fmt.Errorf("%s: %w", versionFile(n), err)
		}
		chain = append(chain, data)
		fp := fmt.Sprintf("%x", st.Fingerprint)
		if t.versions[fp] {
			last = n
		}
		if t.effect == fp {
			effect = st
		}
	}
	for i, data := range chain[:last] {
		if err := writeNew(root, dirChain+"/"+versionFile(i+1), data); err != nil {
			return nil, 0, err
		}
	}
	return effect, len(chain) - last, nil
}

func copyOrders(root, src *os.Root, effect *trust.Store, t *telling) (later int, err error) {
	names, err := listDir(src, "orders", 2*mofn.MaxOrders)
	if err != nil {
		return 0, err
	}
	for _, name := range names {
		id, isOrder := strings.CutSuffix(name, ".json")
		if !isOrder || !isRelease(id) {
			continue // a file that is being written
		}
		data, err := readFile(src, "orders/"+name, maxOrderFile)
		if err != nil {
			return later, err
		}
		_, o, err := parseOrder(data)
		if err != nil {
			return later, fmt.Errorf("orders/%s: %w", name, err)
		}
		// Only an order whose key nobody enrolled is kept without an event.
		if !t.orders[id] {
			if _, err := o.verify("", effect); !errors.Is(err, mofn.ErrUnknownSigner) {
				later++
				continue
			}
		}
		if err := writeNew(root, dirOrders+"/"+name, data); err != nil {
			return later, err
		}
	}
	return later, nil
}
