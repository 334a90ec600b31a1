// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"

	"go.uber.org/zap"

	"sluice/internal/link"
	"sluice/internal/packer"
	"sluice/internal/trust"
)

// Clone makes another site with the keys, the policy and the trust object of this one: making those costs a scrypt a key.
func (s *Site) Clone(dir string) (*Site, error) {
	clone := *s
	clone.Dir = dir
	if err := os.CopyFS(clone.Path("keys"), os.DirFS(s.Path("keys"))); err != nil {
		return nil, err
	}
	if err := os.Chmod(clone.Path("keys", "model"), 0o600); err != nil { // a copy is readable by all, which the receiver refuses
		return nil, err
	}
	for _, name := range []string{"passphrase", "policy", "trust.json"} {
		b, err := os.ReadFile(s.Path(name))
		if err != nil {
			return nil, err
		}
		if err := os.WriteFile(clone.Path(name), b, 0o600); err != nil {
			return nil, err
		}
	}
	return &clone, nil
}

// StartActivated starts the receiver's daemon as systemd does behind a .socket unit: the socket is descriptor 3, and the variables
// say so to exactly this process (sd_listen_fds(3)). The caller keeps the socket open, and with it what arrives while nobody reads.
func (s *Site) StartActivated(config string, socket *os.File) (*Daemon, error) {
	const exec = `LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=link exec "$0" "$@"`
	return s.Start("diode-receiver", nil, []*os.File{socket}, "/bin/sh", "-c", exec,
		filepath.Join(s.Bin, "diode-receiver"), "run", "--config", s.Path(config))
}

// SendUnchecked sends one pass of a sealed release as a sender would that asks no policy: with what the bastion refuses to send.
func (s *Site) SendUnchecked(ctx context.Context, dir, to, rate string) (link.SendReport, error) {
	send, err := s.Unchecked(dir, to, rate)
	if err != nil {
		return link.SendReport{}, err
	}
	return send(ctx)
}

// Unchecked prepares SendUnchecked: opening the key takes its time.
func (s *Site) Unchecked(dir, to, rate string) (func(context.Context) (link.SendReport, error), error) {
	st, err := trust.Load(s.Path("trust.json"), s.Fingerprint)
	if err != nil {
		return nil, err
	}
	pass, err := trust.ReadPassphrase(s.Path("passphrase"))
	if err != nil {
		return nil, err
	}
	key, err := trust.OpenKey(s.Path("keys", "link"), pass)
	if err != nil {
		return nil, err
	}
	env, err := packer.ReadEnvelope(dir)
	if err != nil {
		return nil, err
	}
	cfg := packer.DefaultConfig().Link
	cfg.Receiver, cfg.Address = Receiver, to
	if err := cfg.SetRate(rate, 10); err != nil {
		return nil, err
	}
	return func(ctx context.Context) (rep link.SendReport, err error) {
		conns, err := packer.Dial(ctx, cfg, zap.NewNop())
		if err != nil {
			return rep, err
		}
		defer func() { err = errors.Join(err, conns.Close()) }()
		sender, err := packer.NewSender(cfg, st, conns, key, packer.SenderOptions{Logger: zap.NewNop(), Progress: func(link.SendProgress) {}})
		if err != nil {
			return rep, err
		}
		return packer.Send(ctx, sender, packer.SendRequest{Dir: dir, Env: env, Plan: cfg.Plan(1)})
	}, nil
}

// headerSize is the size of the safetensors header that RandomFile writes, its length field included.
const headerSize = 256

// RandomFile writes a safetensors file of size bytes that do not compress: the inspection lets no unknown kind of file pass.
func RandomFile(name string, size int64, seed uint64) error {
	return makeFile(name, size, func(_ *os.File, w *bufio.Writer) error {
		var key [32]byte
		binary.BigEndian.PutUint64(key[:], seed)
		_, err := io.CopyN(w, rand.NewChaCha8(key), size-headerSize)
		return err
	})
}

// SparseFile writes a safetensors file of size bytes, all but the header zeros that take no space.
func SparseFile(name string, size int64) error {
	return makeFile(name, size, func(f *os.File, _ *bufio.Writer) error { return f.Truncate(size) })
}

// makeFile writes the header of a safetensors file of size bytes, and lets fill write what follows it.
func makeFile(name string, size int64, fill func(*os.File, *bufio.Writer) error) (err error) {
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	// As the packer writes it: by large pages, which the page cache then has (internal/hub, chunkSize).
	w := bufio.NewWriterSize(struct{ io.Writer }{f}, 2<<20) // not f, whose ReadFrom would copy in small pieces
	header := fmt.Appendf(nil, `{"t":{"dtype":"U8","shape":[%[1]d],"data_offsets":[0,%[1]d]}}`, size-headerSize)
	header = append(header, bytes.Repeat([]byte(" "), headerSize-8-len(header))...)
	if _, err := w.Write(append(binary.LittleEndian.AppendUint64(nil, uint64(len(header))), header...)); err != nil {
		return err
	}
	if err := fill(f, w); err != nil {
		return err
	}
	return w.Flush()
}
