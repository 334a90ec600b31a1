// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"sluice/internal/cli"
	"sluice/internal/dropbox"
	"sluice/internal/officer"
	"sluice/internal/strictyaml"
	"sluice/internal/trust"
	"sluice/pkg/mofn"
)

// officerCommand is `officer`: what an officer's machine does, from the drop-box alone.
func officerCommand(s cli.Streams) *cobra.Command {
	c := cli.Group("officer", "An officer's ceremony: review, approve, reject, stop, resume, revoke",
		officerInit(s), officerReview(s), officerDecide(s, "approve"), officerDecide(s, "reject"),
		officerStop(s, mofn.ActionStop), officerStop(s, mofn.ActionRevoke), officerResume(s), officerOrders(s), officerRehearse(s), officerDoctor(s))
	c.Long = `What an officer does, from the drop-box alone: no daemon is asked, no network is used.

  officer rehearse    the whole ceremony with throw-away keys; nothing of it counts
  officer init        write down where the drop-box, the trust object and the key are
  officer doctor      is everything there for a ceremony?
  officer review      one page about a request: risks first
  officer approve     the same page; sign with its first two words, typed
  officer reject      the same page; hold the release with the word "reject", typed
  officer stop        stop a release, a stream, a key, an officer or everything: you alone can
  officer resume      lift stops, with the quorum
  officer revoke      for good, with the quorum
  officer orders      what is stopped, what waits for whom`
	return c
}

// officerFlags are what every verb of an officer needs; officer.yaml has the defaults.
type officerFlags struct {
	config, box, object, fingerprint, key, pass string

	cfg officer.Config
}

func (f *officerFlags) add(c *cobra.Command) {
	c.Flags().StringVar(&f.config, "config", "", "file of the defaults (default: sluice/officer.yaml in the user's configuration directory)")
	c.Flags().StringVar(&f.box, "drop-box", "", "the drop-box folder")
	c.Flags().StringVar(&f.object, "trust", "", "file of the first trust object")
	c.Flags().StringVar(&f.fingerprint, "fingerprint", "", "its fingerprint, from the paper record")
	c.Flags().StringVar(&f.key, "key", "", "the officer's private key file, or that of their key in a token")
	c.Flags().StringVar(&f.pass, "passphrase-file", "", "file whose first line is the key's passphrase or PIN; without it the terminal asks")
}

// fill takes what no flag says from officer.yaml.
func (f *officerFlags) fill() error {
	if f.config == "" {
		path, err := officer.DefaultPath()
		if err != nil && (f.box == "" || f.object == "" || f.fingerprint == "") {
			return cli.Usage(err)
		}
		f.config = path
	}
	cfg, err := officer.LoadConfig(f.config)
	if err != nil {
		return cli.Usage(err)
	}
	f.cfg = cfg
	f.box, f.object, f.fingerprint = cmp.Or(f.box, string(cfg.DropBox)), cmp.Or(f.object, string(cfg.Trust)), cmp.Or(f.fingerprint, cfg.Fingerprint)
	f.key, f.pass = cmp.Or(f.key, string(cfg.Key)), cmp.Or(f.pass, string(cfg.PassphraseFile))
	for _, need := range [][2]string{{"--drop-box", f.box}, {"--trust", f.object}, {"--fingerprint", f.fingerprint}} {
		if need[1] == "" {
			return cli.Usage(fmt.Errorf("%s missing; give it, or write it down once with officer init", need[0]))
		}
	}
	return nil
}

// desk is where an officer sits: the drop-box, the verified chain, a key, a terminal.
type desk struct {
	s      cli.Streams
	f      *officerFlags
	box    dropbox.Box
	anchor *officer.Anchor
	you    officer.Person // zero when no key is named
}

// open fills the flags and verifies the chain. A verb that signs needs the key of an officer.
func (f *officerFlags) open(s cli.Streams, signs bool) (*desk, error) {
	if err := f.fill(); err != nil {
		return nil, err
	}
	d := &desk{s: s, f: f, box: dropbox.Box{Dir: f.box}}
	var err error
	if d.anchor, err = officer.OpenAnchor(d.box, f.object, f.fingerprint); err != nil {
		return nil, officerError(err)
	}
	if f.key == "" {
		if signs {
			return nil, cli.Usage(errors.New("--key missing; give it, or write it down once with officer init"))
		}
		return d, nil
	}
	id, err := officer.KeyIDOf(f.key)
	if err != nil {
		return nil, cli.Usage(err)
	}
	if d.you, err = d.anchor.PersonOf(id, filepath.Base(f.key)); err != nil {
		return nil, officerError(err)
	}
	return d, nil
}

// officerError tells wrong usage from a verdict, and both from a stick that went away.
func officerError(err error) error {
	for _, wrong := range []error{
		officer.ErrConfirm, officer.ErrNoOfficer, officer.ErrDecided, officer.ErrMayNot, officer.ErrSeen, dropbox.ErrRequest, dropbox.ErrExists,
		trust.ErrFingerprint, mofn.ErrOrder, mofn.ErrPassphrase, mofn.ErrKeyFile, strictyaml.ErrConfig,
	} {
		if errors.Is(err, wrong) {
			return cli.Usage(err)
		}
	}
	for _, verdict := range []error{officer.ErrChain, officer.ErrKeyID, officer.ErrProposal, dropbox.ErrHostile, mofn.ErrTrust, mofn.ErrPolicy} {
		if errors.Is(err, verdict) {
			return cli.Refused(err)
		}
	}
	return verdict(err)
}

// sign opens the key, and lets it go when fn is done.
func (d *desk) sign(ctx context.Context, fn func(mofn.Signer) error) (err error) {
	signer, err := openSigner(ctx, d.f.key, d.f.pass)
	if err != nil {
		return cli.Usage(err)
	}
	defer cli.CloseInto(&err, signer)
	return officerError(fn(signer))
}

func officerInit(s cli.Streams) *cobra.Command {
	var f officerFlags
	var cache, pages string
	c := &cobra.Command{
		Use: "init", Short: "Write down where the drop-box, the trust object and the key are", Args: cli.Args(cobra.NoArgs),
		Long: `Write officer.yaml, so that the other verbs need no flags. The trust object is loaded and held against the fingerprint first: compare the
eight words that are printed with the paper record, not with what somebody sent.`,
		RunE: func(*cobra.Command, []string) error {
			st, err := trust.Load(f.object, f.fingerprint)
			if err != nil {
				return cli.Usage(err)
			}
			cfg := officer.Config{Fingerprint: f.fingerprint}
			for _, p := range []struct {
				to   *strictyaml.FilePath
				from string
			}{{&cfg.DropBox, f.box}, {&cfg.Trust, f.object}, {&cfg.Key, f.key}, {&cfg.PassphraseFile, f.pass}, {&cfg.Cache, cache}, {&cfg.Pages, pages}} {
				if p.from == "" {
					continue
				}
				at, err := filepath.Abs(p.from)
				if err != nil {
					return err
				}
				*p.to = strictyaml.FilePath(at)
			}
			path, err := writeOfficerConfig(f.config, cfg)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(s.Out, "%s written\nfingerprint  %x\nwords        %s\n", path, st.Fingerprint, fingerprintWords(st))
			return err
		},
	}
	f.add(c)
	c.Flags().StringVar(&cache, "cache", "", "directory of what this machine read before (default: sluice/index in the user's cache directory)")
	c.Flags().StringVar(&pages, "pages", "", "directory of the pages that were signed (default: pages beside officer.yaml)")
	return cli.Require(c, "drop-box", "trust", "fingerprint")
}

// writeOfficerConfig never writes over a file: a fingerprint that was pinned is not changed by the way.
func writeOfficerConfig(path string, cfg officer.Config) (string, error) {
	if path == "" {
		var err error
		if path, err = officer.DefaultPath(); err != nil {
			return "", cli.Usage(err)
		}
	}
	b, err := cfg.Marshal()
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return "", err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, os.ErrExist) {
		return "", cli.Usage(fmt.Errorf("%s exists; a fingerprint that was pinned is not written over: change the file by hand, or remove it", path))
	}
	if err != nil {
		return "", err
	}
	w := bufio.NewWriter(f)
	_, err = w.Write(b)
	if err := errors.Join(err, w.Flush(), f.Close()); err != nil {
		return "", err
	}
	if _, err := officer.LoadConfig(path); err != nil {
		return "", errors.Join(fmt.Errorf("what was written does not read: %w", err), os.Remove(path))
	}
	return path, nil
}

// tool is what an approval says made it.
func tool() string { return "bastion-packer " + cli.Version(version) }
