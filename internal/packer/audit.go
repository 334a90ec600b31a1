// SPDX-License-Identifier: Apache-2.0

package packer

import (
	"errors"
	"fmt"
	"path/filepath"

	"sluice/internal/audit"
	"sluice/internal/journal"
	"sluice/internal/trust"
)

// logKey opens the key that keys.log names; [audit.ErrNoKey] when it names none.
func logKey(cfg Config) (*audit.LogKey, error) {
	if cfg.Keys.Log == "" {
		return nil, audit.ErrNoKey
	}
	pass, err := trust.ReadPassphrase(cfg.Keys.PassphraseFile)
	if err != nil {
		return nil, err
	}
	return audit.OpenKey(cfg.Keys.Log, pass)
}

// openLog names and signs the log of this bastion. One without a log key is kept all the same, and cannot be shown to others.
func openLog(cfg Config, j *journal.Journal) (*audit.Log, error) {
	key, err := logKey(cfg)
	if err != nil && !errors.Is(err, audit.ErrNoKey) {
		return nil, err
	}
	return audit.NewLog(j, audit.Low, cfg.Audit.ID, key), nil
}

// OpenAudit opens the log of a bastion whose daemon does not run, to read it. The caller closes the journal.
func OpenAudit(cfg Config) (*audit.Log, *journal.Journal, error) {
	j, err := journal.Open(filepath.Join(cfg.State, "journal.db"), journal.Options{ReadOnly: true})
	if err != nil {
		return nil, nil, err
	}
	l, err := openLog(cfg, j)
	if err != nil {
		return nil, nil, errors.Join(err, j.Close())
	}
	return l, j, nil
}

// Audit is the log of this bastion, for who asks the running daemon.
func (p *Packer) Audit() *audit.Log { return p.audit }

// startEvent says which build runs with which configuration, under which trust object and packer key.
func (p *Packer) startEvent(version string) journal.Event {
	return journal.Event{
		Actor: actor, Action: audit.ActionStart, Digest: fmt.Sprintf("%x", p.store().Fingerprint), Key: p.signer.KeyID().String(),
		Detail: fmt.Sprintf("version %s; configuration %s; trust object %d", version, p.cfg.Digest, p.store().Object.Version),
	}
}
