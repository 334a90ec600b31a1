// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"sluice/internal/audit"
	"sluice/internal/trust"
	"sluice/pkg/envelope"
	"sluice/pkg/mofn"
)

// HalvesCommand is `halves`: it takes signatures apart for tools of others (docs/interop.md).
func HalvesCommand(s Streams) *cobra.Command {
	h := halves{known: map[string]*mofn.PublicKey{}}
	var object, fingerprint string
	var keys []string
	c := &cobra.Command{
		Use: "halves FILE", Short: "Take signatures apart, for openssl and signify", Args: Args(cobra.ExactArgs(1)),
		Long: `Write each half of each signature of FILE, what it signs, and its public key, as openssl and signify read them, into a new directory; and
print the commands that check them. FILE is an envelope (envelope.sluice), a release statement (release.json), an approval, a trust
object, or a checkpoint of the audit log.

Nothing is verified here: that is what the other tools are for. A half that verifies is not yet a signature: both halves must,
and who may sign what is said by the policy alone (verify). docs/interop.md says what each file is.`,
		RunE: func(_ *cobra.Command, args []string) error {
			if err := h.addKeys(object, fingerprint, keys); err != nil {
				return Usage(err)
			}
			found, err := h.read(args[0])
			if err != nil {
				return err
			}
			return h.write(s, found)
		},
	}
	c.Flags().StringVar(&object, "trust", "", "trust object with the keys; with --fingerprint")
	c.Flags().StringVar(&fingerprint, "fingerprint", "", "its fingerprint, 64 hex digits")
	c.Flags().StringSliceVar(&keys, "key", nil, "public file of a key, instead or besides: that of the log, for a checkpoint")
	c.Flags().StringVar(&h.out, "out", "", "directory to be made (required)")
	requireFlags(c, "out")
	return c
}

// halves is one run of the verb.
type halves struct {
	out   string
	known map[string]*mofn.PublicKey // by key id
	logs  []*audit.Key
}

// signed is a signature that was found, by a known key.
type signed struct {
	name    string // begins the names of its files
	role    string
	key     *mofn.PublicKey
	message []byte // M: the DSSE PAE, or the text of a note
	sig     []byte
}

func (h *halves) addKeys(object, fingerprint string, files []string) error {
	if (object == "") != (fingerprint == "") {
		return errors.New("--trust and --fingerprint go together")
	}
	if object != "" {
		st, err := trust.Load(object, fingerprint)
		if err != nil {
			return err
		}
		for _, k := range st.Object.Keys {
			if err := h.add(k.Suite, k.Public); err != nil {
				return err
			}
		}
	}
	for _, name := range files {
		k, err := readPublic(name, mofn.SuiteH1, mofn.SuiteH2)
		if err != nil {
			return err
		}
		log, err := readLogKey(name)
		if err != nil {
			return err
		}
		if err := h.add(k.suite, k.public); err != nil {
			return err
		}
		h.logs = append(h.logs, log)
	}
	if len(h.known) == 0 {
		return errors.New("no key: name a trust object (--trust, --fingerprint) or a public file (--key)")
	}
	return nil
}

func (h *halves) add(suite mofn.Suite, public []byte) error {
	k, err := mofn.ParsePublicKey(suite, public)
	if err != nil {
		return err
	}
	h.known[k.ID().String()] = k
	return nil
}

// read finds the signatures of a file by how it begins.
func (h *halves) read(name string) ([]signed, error) {
	b, err := readCapped(name, envelope.MaxStream)
	if err != nil {
		return nil, err
	}
	var found []signed
	switch {
	case bytes.HasPrefix(b, []byte("SLUICE")):
		found, err = h.envelope(b)
	case bytes.HasPrefix(b, []byte("{")):
		found, err = h.dsse(strings.TrimSuffix(filepath.Base(name), ".json"), b)
	default:
		found, err = h.checkpoint(b)
	}
	if err != nil {
		return nil, Refused(fmt.Errorf("%s: %w", name, err))
	}
	if len(found) == 0 {
		return nil, Refused(fmt.Errorf("%s: no signature by a key that was given", name))
	}
	return found, nil
}

func (h *halves) envelope(b []byte) ([]signed, error) {
	env, err := envelope.Read(bytes.NewReader(b))
	if err != nil {
		return nil, err
	}
	found, err := h.dsse("release", env.Release)
	for _, a := range env.Approvals {
		more, aerr := h.dsse("approval-"+strings.TrimSuffix(a.Name, ".json"), a.Data)
		found, err = append(found, more...), errors.Join(err, aerr)
	}
	return found, err
}

func (h *halves) dsse(name string, b []byte) (found []signed, err error) {
	d, err := envelope.ParseDSSE(b, len(b))
	if err != nil {
		return nil, err
	}
	role, err := roleOf(d)
	if err != nil {
		return nil, err
	}
	for _, sig := range d.Signatures {
		if key, ok := h.known[sig.KeyID]; ok {
			one := signed{name, role, key, envelope.PAE(d.PayloadType, d.Payload), sig.Sig}
			if len(d.Signatures) > 1 {
				one.name += "-" + sig.KeyID[:8]
			}
			found = append(found, one)
		}
	}
	return found, nil
}

// roleOf says in which role a statement is signed (trust.md section 1).
func roleOf(d *envelope.DSSE) (string, error) {
	if d.PayloadType == trust.PayloadType {
		return mofn.RoleRoot, nil
	}
	a, aerr := envelope.ParseApproval(d.Payload)
	if aerr == nil {
		return a.Role, nil
	}
	if _, err := envelope.ParseStatement(d.Payload); err != nil {
		return "", fmt.Errorf("neither a release statement (%w) nor an approval (%w) nor a trust object", err, aerr)
	}
	return mofn.RolePacker, nil
}

func (h *halves) checkpoint(b []byte) (found []signed, err error) {
	for _, log := range h.logs {
		text, sig, serr := audit.SignedBy(b, log)
		if errors.Is(serr, audit.ErrSignature) {
			continue // of another key
		}
		if serr != nil {
			return nil, serr
		}
		found = append(found, signed{"checkpoint-" + log.ID.String()[:8], audit.Role, h.known[log.ID.String()], text, sig})
	}
	return found, nil
}

// write takes everything apart into a directory that it makes.
func (h *halves) write(s Streams, found []signed) error {
	if err := os.Mkdir(h.out, 0o755); err != nil {
		return Usage(fmt.Errorf("--out: %w", err))
	}
	for _, one := range found {
		parts, err := one.key.Split(one.role, one.message, one.sig)
		if err != nil {
			return Refused(fmt.Errorf("%s: %w", one.name, err))
		}
		base := filepath.Join(h.out, one.name)
		files, err := partFiles(one, parts)
		if err != nil {
			return err
		}
		for _, f := range files {
			if err := writeNew(base+f.ending, f.data, 0o644); err != nil {
				return err
			}
		}
		if _, err := fmt.Fprintf(s.Out, "# %s: role %s, suite %s, key %s\n%s", one.name, one.role, one.key.Suite(), one.key.ID(), commands(base, parts)); err != nil {
			return err
		}
	}
	return nil
}
