// SPDX-License-Identifier: Apache-2.0

package receiver

import (
	"errors"
	"fmt"

	"sluice/internal/audit"
	"sluice/internal/journal"
)

// openLog names and signs the log of this site. One without a log key is kept all the same, and cannot be shown to others.
func openLog(cfg Config, j *journal.Journal) (*audit.Log, error) {
	key, err := logKey(cfg)
	if err != nil && !errors.Is(err, audit.ErrNoKey) {
		return nil, err
	}
	return audit.NewLog(j, audit.High, cfg.Receiver, key), nil
}

// logKey opens the key that keys.log names; [audit.ErrNoKey] when it names none.
func logKey(cfg Config) (*audit.LogKey, error) {
	if cfg.Keys.Log == "" {
		return nil, audit.ErrNoKey
	}
	pass, err := readSecret(cfg.Keys.PassphraseFile)
	if err != nil {
		return nil, fmt.Errorf("keys.passphrase_file: %w", err)
	}
	return audit.OpenKey(cfg.Keys.Log, []byte(pass))
}

// OpenAudit opens the log of a site whose daemon does not run, to read it. The caller closes the journal.
func OpenAudit(cfg Config) (*audit.Log, *journal.Journal, error) {
	j, err := journal.Open(cfg.State+"/journal.db", journal.Options{ReadOnly: true})
	if err != nil {
		return nil, nil, err
	}
	l, err := openLog(cfg, j)
	if err != nil {
		return nil, nil, errors.Join(err, j.Close())
	}
	return l, j, nil
}

// Audit is the log of this site, for who asks the running daemon.
func (r *Receiver) Audit() *audit.Log { return r.audit }

// startEvent says which build runs with which configuration under which trust object.
func (r *Receiver) startEvent(version string) journal.Event {
	return journal.Event{
		Actor: r.actor(), Action: audit.ActionStart, Digest: fmt.Sprintf("%x", r.store().Fingerprint),
		Detail: fmt.Sprintf("version %s; configuration %s; trust object %d", version, r.cfg.Digest, r.store().Object.Version),
	}
}
