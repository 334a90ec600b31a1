// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"time"

	"sluice/internal/admin"
	"sluice/internal/dropbox"
	"sluice/internal/packer"
	"sluice/internal/receiver"
	"sluice/internal/trust"
	"sluice/pkg/envelope"
)

var wordsLine = regexp.MustCompile(`(?m)^WORDS +(\S+ \S+)`)

// officer runs a verb of an officer, with what this site's officers have; nothing of the user's own officer.yaml.
func (s *Site) officer(ctx context.Context, verb string, args ...string) (string, error) {
	return s.Call(ctx, "bastion-packer", append([]string{
		"officer", verb, "--config", s.Path("officer.yaml"), "--trust", s.Path("trust.json"), "--fingerprint", s.Fingerprint, "--drop-box", s.Path("dropbox"),
	}, args...)...)
}

// Show gives the page that an officer is shown about a request. More flags may be given, such as --payload.
func (s *Site) Show(ctx context.Context, release string, more ...string) (string, error) {
	return s.officer(ctx, "review", append(more, release)...)
}

// Approve lets one officer sign a request, with the words of the page they were shown.
func (s *Site) Approve(ctx context.Context, officer, release string, more ...string) (string, error) {
	page, err := s.Show(ctx, release)
	if err != nil {
		return "", err
	}
	m := wordsLine.FindStringSubmatch(page)
	if m == nil {
		return "", fmt.Errorf("the review page shows no words:\n%s", page)
	}
	return s.officer(ctx, "approve", append(more, "--key", s.Path("keys", officer), "--passphrase-file", s.Path("passphrase"), "--confirm", m[1], release)...)
}

// Order lets one officer stop, resume or revoke, with the word that they would type. args are what the verb takes. It returns the order's id.
func (s *Site) Order(ctx context.Context, officer, verb, reason string, args ...string) (id string, err error) {
	out, err := s.officer(ctx, verb, append([]string{
		"--key", s.Path("keys", officer), "--passphrase-file", s.Path("passphrase"), "--reason", reason, "--confirm", verb,
	}, args...)...)
	if err != nil {
		return "", err
	}
	m := orderFile.FindStringSubmatch(out)
	if m == nil {
		return "", fmt.Errorf("officer %s named no order: %q", verb, out)
	}
	return m[1], nil
}

var orderFile = regexp.MustCompile(`orders/([0-9a-f]{64})\.json`)

// Request puts a sealed release into the drop-box.
func (s *Site) Request(env *envelope.Envelope) error {
	st, err := trust.Load(s.Path("trust.json"), s.Fingerprint)
	if err != nil {
		return err
	}
	return packer.Request(dropbox.Box{Dir: s.Path("dropbox")}, st, env, nil)
}

// SealData seals dir/payload as a release of kind dataset with the verbs of the command line, and lets the given officers approve it.
// dir becomes a sealed release.
func (s *Site) SealData(ctx context.Context, dir, stream string, seq int, officers ...string) (*envelope.Envelope, error) {
	return s.seal(ctx, dir, seq, officers, "--kind", "dataset", "--stream", stream, "--name", "lab-data")
}

// SealModel is SealData for weights that no gate has seen, in a stream that waits for nothing.
func (s *Site) SealModel(ctx context.Context, dir string, seq int, officers ...string) (*envelope.Envelope, error) {
	return s.seal(ctx, dir, seq, officers, "--kind", "model-weights", "--stream", "data/model", "--name", "lab-model", "--gate-exception", "a model for a test")
}

func (s *Site) seal(ctx context.Context, dir string, seq int, officers []string, args ...string) (*envelope.Envelope, error) {
	args = append([]string{
		"seal", "--key", s.Path("keys", "packer"), "--passphrase-file", s.Path("passphrase"), "--version", fmt.Sprintf("v%d", seq), "--seq", fmt.Sprint(seq),
		"--source", "lab", "--audience", Receiver,
	}, args...)
	if _, err := s.Call(ctx, "bastion-packer", append(args, dir)...); err != nil {
		return nil, err
	}
	env, err := packer.ReadEnvelope(dir)
	if err != nil {
		return nil, err
	}
	if err := s.Request(env); err != nil {
		return nil, err
	}
	for _, o := range officers {
		if _, err := s.Approve(ctx, o, env.ID.String()); err != nil {
			return nil, err
		}
	}
	return env, s.Collect(env, dir)
}

// Collect merges the approvals of the drop-box into an envelope and writes it into dir.
func (s *Site) Collect(env *envelope.Envelope, dir string) error {
	found, problems, err := dropbox.Box{Dir: s.Path("dropbox")}.Approvals(env.ID)
	if err != nil || len(problems) > 0 {
		return fmt.Errorf("drop-box: %v %w", problems, err)
	}
	if err := env.Merge(found); err != nil {
		return err
	}
	f, err := os.Create(filepath.Join(dir, "envelope.sluice"))
	if err != nil {
		return err
	}
	_, err = env.WriteTo(f)
	return errors.Join(err, f.Close())
}

// SendArgs are the arguments of the verb send for a sealed release.
func (s *Site) SendArgs(dir, to, rate string, pass int) []string {
	return []string{
		"send", "--trust", s.Path("trust.json"), "--fingerprint", s.Fingerprint, "--link-key", s.Path("keys", "link"), "--passphrase-file", s.Path("passphrase"),
		"--receiver", Receiver, "--to", to, "--rate", rate, "--repair", "10", "--pass", fmt.Sprint(pass), dir,
	}
}

// HighStatus asks the receiver's daemon.
func (s *Site) HighStatus(ctx context.Context) (receiver.Status, error) {
	var st receiver.Status
	return st, admin.Fetch(ctx, "unix:"+s.Path("high.sock"), "/status", &st)
}

// Release asks the receiver's daemon for one release; nil when it does not know it.
func (s *Site) Release(ctx context.Context, id string) (*receiver.ReleaseStatus, error) {
	st, err := s.HighStatus(ctx)
	if err != nil {
		return nil, err
	}
	for i := range st.Releases {
		if st.Releases[i].Release == id {
			return &st.Releases[i], nil
		}
	}
	return nil, nil //nolint:nilnil // not there yet
}

// WaitUp waits until a daemon answers on its admin socket.
func (s *Site) WaitUp(ctx context.Context, d *Daemon, socket string) error {
	return WaitFor(ctx, 30*time.Second, d.Name, func() (bool, error) {
		return admin.Fetch(ctx, "unix:"+s.Path(socket), "/healthz", nil) == nil, d.Died()
	})
}

// WaitState waits until the receiver has a release in a state. REJECTED ends the wait with an error, unless it is what is waited for.
func (s *Site) WaitState(ctx context.Context, d *Daemon, id, state string, limit time.Duration) error {
	return WaitFor(ctx, limit, "state "+state, func() (bool, error) {
		r, err := s.Release(ctx, id)
		if err != nil {
			return false, errors.Join(d.Died(), err)
		}
		if r != nil && r.State == "REJECTED" && state != "REJECTED" {
			return false, fmt.Errorf("the receiver rejected the release: %s", r.Error)
		}
		return r != nil && r.State == state, nil
	})
}
