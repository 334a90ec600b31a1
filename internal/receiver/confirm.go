// SPDX-License-Identifier: Apache-2.0

package receiver

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"strings"
	"time"

	"sluice/internal/audit"
	"sluice/internal/durable"
	"sluice/internal/journal"
	"sluice/pkg/envelope"
)

// confirmDir holds a file a release that a person at this site confirmed. Who may write into the state directory may confirm: the daemon
// holds the journal, so that a file is how another process reaches it.
const confirmDir = "confirmed"

// errUnconfirmed says that nobody at this site confirmed the release.
var errUnconfirmed = errors.New("receiver: a person at this site has to confirm the release")

// confirmation is the file.
type confirmation struct {
	Type    string `json:"type"`
	Release string `json:"release"`
	By      string `json:"by"` // the name of the account
	At      string `json:"at"`
}

const (
	confirmType = "sluice-confirmation-v1"
	maxConfirm  = 4 << 10
)

// Confirm lets a release be published at this site, as far as this site is concerned. It needs no daemon and stops none.
func Confirm(cfg Config, id envelope.Digest, now time.Time) error {
	root, err := os.OpenRoot(cfg.State)
	if err != nil {
		return fmt.Errorf("state: %w", err)
	}
	defer root.Close()
	if err := root.MkdirAll(confirmDir, 0o700); err != nil {
		return fmt.Errorf("state: %w", err)
	}
	by := fmt.Sprintf("uid %d", os.Getuid())
	if u, err := user.Current(); err == nil {
		by = u.Username
	}
	b, err := json.Marshal(confirmation{Type: confirmType, Release: id.String(), By: by, At: now.UTC().Format(time.RFC3339)})
	if err != nil {
		return err
	}
	return durable.WriteFile(root, confirmDir+"/"+id.String(), b, 0o600)
}

// confirmed reads the confirmation of a release; nil: there is none.
func (r *Receiver) confirmed(id string) (*confirmation, error) {
	f, err := r.state.Open(confirmDir + "/" + id)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("confirmation: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() || info.Size() > maxConfirm {
		return nil, errors.Join(fmt.Errorf("confirmation of %s: no regular file of at most %d bytes", id, maxConfirm), err)
	}
	var c confirmation
	if err := json.NewDecoder(f).Decode(&c); err != nil || c.Type != confirmType || c.Release != id {
		return nil, errors.Join(fmt.Errorf("confirmation of %s: not what `diode-receiver confirm` writes; remove it and confirm again", id), err)
	}
	return &c, nil
}

// checkConfirmed holds a release back that nobody here confirmed, where this site wants it.
func (r *Receiver) checkConfirmed(job journal.Job) error {
	if !r.cfg.Confirm {
		return nil
	}
	c, err := r.confirmed(job.ID)
	if err == nil && c == nil {
		err = fmt.Errorf("%w: diode-receiver confirm %.12s", errUnconfirmed, job.ID)
	}
	return err
}

// recordConfirmation puts a confirmation into the log before the publication that it permits, once.
func (r *Receiver) recordConfirmation(job journal.Job) error {
	if !r.cfg.Confirm {
		return nil
	}
	c, err := r.confirmed(job.ID)
	if err != nil || c == nil {
		return err
	}
	d, err := dataOf(job)
	if err != nil || d.Confirmed {
		return err
	}
	_, err = r.journal.Touch(job.ID, func(j *journal.Job) error {
		return setData(j, func(d *jobData) { d.Confirmed = true })
	}, r.newEvent(audit.ActionConfirmed, job.ID, "by "+strings.ToValidUTF8(c.By, "?")+" at "+c.At))
	return err
}
