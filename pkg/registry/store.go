// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"errors"
	"io"
)

// errExists is a store's answer when put finds the key, or swap finds that the
// value is no longer the one that was read.
var errExists = errors.New("registry: key exists")

// object is what a store knows of one key without reading it.
type object struct {
	key     string
	size    int64  // bytes
	version string // server's version id, or ""
	tag     string // opaque, for swap
	digest  string // hex SHA-256 as the server computed it, or "" when unknown
	odd     string // why this is no plain object ("" when it is)
}

// body is what is to be stored. open returns a new reader at offset 0 of
// exactly size bytes at each call. add, never nil, is told the bytes stored
// since the last call; it may be negative when a piece is sent again.
type body struct {
	size   int64
	sha256 [32]byte
	stage  string // hex release id: whose staging area to use
	link   bool   // the opened *os.File may be linked instead of copied
	final  bool   // the caller does not settle later: be durable on return
	open   func() (io.ReadSeekCloser, error)
	add    func(n int64)
}

// oddDirectory is the odd of a directory, which only a directory target has.
const oddDirectory = "a directory"

// written is what a store says of an object it has just created.
type written struct {
	version  string // server's version id, or ""
	readBack bool   // its bytes were read back from the medium and hashed already
}

// store is what the publication sequence needs of a target. Keys are
// slash-separated and were validated. Errors match the package's sentinels.
type store interface {
	// check refuses a key that the target cannot hold, before anything is written.
	check(key string) error
	// begin excludes other writers of release id where the target can, and
	// clears what a crash left of its staging. end must be called.
	begin(ctx context.Context, id string) (end func() error, err error)
	// put creates key, which must not exist (errExists), with exactly b's
	// bytes, all or nothing. Bytes that do not hash to b.sha256 never get the
	// name (ErrCorrupt).
	put(ctx context.Context, key string, b body) (written, error)
	// get opens key. fresh asks for the bytes on the medium, not a cache's.
	get(ctx context.Context, key string, fresh bool) (io.ReadSeekCloser, object, error)
	// stat describes key.
	stat(ctx context.Context, key string) (object, error)
	// list calls each for every key below prefix (which ends in a slash), in any order.
	list(ctx context.Context, prefix string, each func(object) error) error
	// children lists the names directly below prefix that have keys below them.
	children(ctx context.Context, prefix string) ([]string, error)
	// swap sets key to data if it is still what tag says ("" means absent),
	// else errExists. Durable on return.
	swap(ctx context.Context, key, tag string, data []byte) error
	// hide takes all keys below prefix away from consumers, and keeps the bytes
	// for investigators. Durable on return; nothing below prefix is success.
	hide(ctx context.Context, prefix string) error
	// settle makes all keys below prefix durable, after any number of puts.
	settle(ctx context.Context, prefix string) error
	// leftovers names what crashes left that no key shows.
	leftovers(ctx context.Context) ([]string, error)
	// clean removes the leftovers that nobody works on.
	clean(ctx context.Context) error
	close() error
}
