// SPDX-License-Identifier: Apache-2.0

package link

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"go.uber.org/zap"
)

// Names below ReceiverConfig.Dir. It belongs to the receiver alone.
const (
	announcementPrefix = "session-"  // + session id: an announcement as received, sealed to our key
	envelopePrefix     = "envelope-" // + key: the directory of an envelope object
	unfinishedSuffix   = ".tmp"
)

// keep stores an announcement as it was received, so that a restarted receiver
// resumes the session with the next datagram. Nothing is lost when it fails: the
// announcement comes again within 250 ms; so it is not synced either.
func (r *Receiver) keep(s *session, datagram []byte) {
	name := announcementPrefix + hex.EncodeToString(s.announcement.Session[:])
	err := r.config.Dir.WriteFile(name+unfinishedSuffix, datagram, 0o600)
	if err == nil {
		err = r.config.Dir.Rename(name+unfinishedSuffix, name)
	}
	if err != nil {
		r.log.Warn("announcement not kept: a restart will wait for the next", zap.Error(err))
	}
}

// unkeep removes a kept announcement.
func (r *Receiver) unkeep(id [8]byte) {
	err := r.config.Dir.Remove(announcementPrefix + hex.EncodeToString(id[:]))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		r.log.Warn("kept announcement not removed", zap.Error(err))
	}
}

// resume takes up the sessions that an earlier process kept, and removes what no
// session needs. Kept announcements are authenticated like any other: a link key
// that was withdrawn since ends its sessions.
func (r *Receiver) resume() error {
	entries, err := fs.ReadDir(r.config.Dir.FS(), ".")
	if err != nil {
		return fmt.Errorf("read link directory: %w", err)
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), announcementPrefix) {
			r.resumeSession(e.Name())
		}
	}
	needed := make(map[string]bool)
	for key := range r.releases {
		needed[key.directory()] = true
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), envelopePrefix) && !needed[e.Name()] {
			err = errors.Join(err, r.config.Dir.RemoveAll(e.Name()))
		}
	}
	if err != nil {
		return fmt.Errorf("clear link directory: %w", err)
	}
	return r.broken
}

// resumeSession opens one kept announcement, or removes it.
func (r *Receiver) resumeSession(name string) {
	s, err := r.readKept(name)
	if errors.Is(err, ErrNotNow) {
		r.log.Warn("kept announcement not opened: the session waits for its next one", zap.String("file", name), zap.Error(err))
		return
	}
	if err != nil {
		r.log.Info("kept announcement dropped", zap.String("file", name), zap.Error(err))
		if err := r.config.Dir.Remove(name); err != nil {
			r.log.Warn("kept announcement not removed", zap.String("file", name), zap.Error(err))
		}
		return
	}
	r.admit(s)
}

// readKept reads and authenticates one kept announcement.
func (r *Receiver) readKept(name string) (*session, error) {
	d, err := readSmall(r.config.Dir, name, MaxDatagram)
	if err != nil {
		return nil, err
	}
	h, err := ParseHeader(d)
	switch {
	case err != nil:
		return nil, err
	case h.Type != TypeAnnouncement:
		return nil, ErrType
	case name != announcementPrefix+hex.EncodeToString(h.Session[:]):
		return nil, fmt.Errorf("%w: kept under another session's name", ErrParameters)
	case len(r.table.sessions) == MaxSessions:
		return nil, fmt.Errorf("%w: more than %d kept", ErrParameters, MaxSessions)
	case !r.opener.CheckMAC1(d):
		return nil, ErrMAC1
	}
	s, err := r.open(d, r.total.lastHeard) // zero: it gives way first
	if err != nil {
		return nil, err
	}
	if info, err := r.config.Dir.Stat(name); err == nil {
		s.announced = info.ModTime() // written when it was first heard
	}
	return s, nil
}

// readSmall reads a file of at most limit bytes.
func readSmall(root *os.Root, name string, limit int64) ([]byte, error) {
	f, err := root.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, limit+1))
}
