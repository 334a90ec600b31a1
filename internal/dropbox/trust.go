// SPDX-License-Identifier: Apache-2.0

package dropbox

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"regexp"
	"strconv"
	"strings"

	"sluice/pkg/envelope"
)

const (
	ordersDir    = "orders"
	chainDir     = "trust/chain"
	proposalsDir = "trust/proposals"

	maxOrder = 64 << 10
	maxTrust = 8 << 20
	maxChain = 256 // docs/spec/bulletin.md section 1
)

var (
	orderName     = regexp.MustCompile(`^[0-9a-f]{64}\.json$`)
	proposalName  = regexp.MustCompile(`^[0-9a-f]{64}\.json$`)
	signatureName = regexp.MustCompile(`^[0-9a-f]{64}\.[a-z0-9][a-z0-9._-]{0,63}\.[0-9a-f]{8}\.json$`)
)

// Orders reads what officers ordered: DSSE envelopes whose signatures nobody looked at, by the name of their files.
func (b Box) Orders() (found []envelope.Named, problems []string, err error) {
	return b.collect(ordersDir, "<order id>.json", orderName.MatchString, maxOrder)
}

// AddOrder writes one new order and reads it back. Errors: ErrExists, ErrAway, ErrReadOnly.
func (b Box) AddOrder(id string, data []byte) error {
	return b.add(ordersDir+"/"+id+".json", data)
}

func versionName(v int64) string { return fmt.Sprintf("%06d", v) }

// Chain reads the versions of the trust object that lie there, from 1 on to the first that does not: DSSE envelopes whose signatures
// nobody looked at. None is no error: a bastion of before writes none.
func (b Box) Chain() ([][]byte, error) {
	root, err := b.Open()
	if err != nil {
		return nil, err
	}
	defer root.Close()
	return readChain(root, chainDir)
}

// ReadChain reads the versions of a directory that is itself a chain.
func ReadChain(dir string) ([][]byte, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	return readChain(root, ".")
}

func readChain(root *os.Root, dir string) ([][]byte, error) {
	var chain [][]byte
	for len(chain) < maxChain {
		data, err := ReadFile(root, path.Join(dir, versionName(int64(len(chain)+1))+".json"), maxTrust)
		if errors.Is(err, fs.ErrNotExist) {
			return chain, nil
		}
		if err != nil {
			return nil, explain(err)
		}
		chain = append(chain, data)
	}
	return chain, nil
}

// PutChain writes the versions of the trust object: what the bastion writes.
func (b Box) PutChain(chain [][]byte) error {
	root, err := b.Made()
	if err != nil {
		return err
	}
	defer root.Close()
	if err := root.MkdirAll(chainDir, 0o775); err != nil {
		return explainWrite(err)
	}
	for i, data := range chain {
		name := chainDir + "/" + versionName(int64(i+1)) + ".json"
		if old, err := ReadFile(root, name, maxTrust); err == nil && string(old) == string(data) {
			continue
		}
		if err := Replace(root, name, data); err != nil {
			return err
		}
	}
	return nil
}

// Proposal is a next version of the trust object with what was signed of it so far. Nobody's signature was looked at, and Version and
// Fingerprint are those of the file names.
type Proposal struct {
	Version     int64
	Fingerprint string
	Data        []byte           // DSSE without signatures
	Signed      []envelope.Named // DSSE with one signature each, by the name of their files
}

// Proposals reads all proposals. What is not of the form is a problem, and holds nothing up.
func (b Box) Proposals() (found []Proposal, problems []string, err error) {
	root, err := b.Open()
	if err != nil {
		return nil, nil, err
	}
	defer root.Close()
	versions, err := names(root, proposalsDir)
	if err != nil {
		return nil, nil, err
	}
	for _, v := range versions {
		n, err := strconv.ParseInt(v, 10, 64)
		if err != nil || versionName(n) != v {
			problems = append(problems, fmt.Sprintf("%+.120q is no version of the form 000002", v))
			continue
		}
		some, bad, err := proposalsOf(root, n)
		if err != nil {
			problems = append(problems, err.Error())
			continue
		}
		found, problems = append(found, some...), append(problems, bad...)
	}
	return found, problems, nil
}

func proposalsOf(root *os.Root, version int64) (found []Proposal, problems []string, err error) {
	dir := path.Join(proposalsDir, versionName(version))
	all, err := names(root, dir)
	if err != nil {
		return nil, nil, err
	}
	at := map[string]int{}
	for _, name := range all {
		fingerprint, _, _ := strings.Cut(name, ".")
		isProposal := proposalName.MatchString(name)
		if !isProposal && !signatureName.MatchString(name) {
			problems = append(problems, fmt.Sprintf("%+.160q is neither <fingerprint>.json nor <fingerprint>.<officer>.<key>.json", name))
			continue
		}
		data, err := ReadFile(root, path.Join(dir, name), maxTrust)
		if err != nil {
			problems = append(problems, err.Error())
			continue
		}
		i, known := at[fingerprint]
		if !known {
			i = len(found)
			at[fingerprint] = i
			found = append(found, Proposal{Version: version, Fingerprint: fingerprint})
		}
		if isProposal {
			found[i].Data = data
		} else {
			found[i].Signed = append(found[i].Signed, envelope.Named{Name: name, Data: data})
		}
	}
	return found, problems, nil
}

// AddProposal writes one new proposal and reads it back. Errors: ErrExists, ErrAway, ErrReadOnly.
func (b Box) AddProposal(version int64, fingerprint string, data []byte) error {
	return b.add(path.Join(proposalsDir, versionName(version), fingerprint+".json"), data)
}

// AddSignature writes one officer's signature of a proposal and reads it back. Errors: ErrExists, ErrAway, ErrReadOnly.
func (b Box) AddSignature(version int64, fingerprint, officer, key string, data []byte) error {
	return b.add(path.Join(proposalsDir, versionName(version), fmt.Sprintf("%s.%s.%.8s.json", fingerprint, officer, key)), data)
}
