// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"sluice/internal/cli/clitest"
	"sluice/internal/packer"
	"sluice/internal/receiver"
	"sluice/pkg/mofn"
)

const (
	examples  = "../../deploy/examples"
	reference = "../../docs/configuration.md"
)

// keysOf lists the YAML keys of a configuration, dotted; a list is named by its key, its entries' keys follow a dot.
func keysOf(t reflect.Type, prefix string) (keys []string) {
	for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice {
		t = t.Elem()
	}
	if t.Kind() != reflect.Struct {
		return []string{strings.TrimSuffix(prefix, ".")}
	}
	for i := range t.NumField() {
		if tag := t.Field(i).Tag.Get("yaml"); tag != "-" { // what is computed from the file is no key of it
			keys = append(keys, keysOf(t.Field(i).Type, prefix+tag+".")...)
		}
	}
	return keys
}

// section is the part of a page below a heading of level two.
func section(t *testing.T, page, heading string) string {
	t.Helper()
	_, rest, ok := strings.Cut(page, "\n## "+heading+"\n")
	if !ok {
		t.Fatalf("%s has no section %s", reference, heading)
	}
	part, _, _ := strings.Cut(rest, "\n## ")
	return part
}

// TestEveryKeyIsDocumented: a key that is added to a Config without a word about it, or a word about a key that is gone, fails here.
func TestEveryKeyIsDocumented(t *testing.T) {
	page := read(t, reference)
	for name, config := range map[string]any{"bastion-packer": packer.Config{}, "diode-receiver": receiver.Config{}} {
		text, example := section(t, page, name), read(t, filepath.Join(examples, name+".yaml"))
		keys := keysOf(reflect.TypeOf(config), "")
		if len(keys) < 20 {
			t.Fatalf("%s: reflection found %d keys only", name, len(keys))
		}
		known := map[string]bool{"watch": true, "watch.base": true, "link.lanes": true, "link.passes": true}
		for _, k := range keys {
			known[k] = true
			if !strings.Contains(text, "`"+k+"`") {
				t.Errorf("%s, section %s, says nothing of %s", reference, name, k)
			}
			last := k[strings.LastIndexByte(k, '.')+1:]
			if !regexp.MustCompile(`(?m)^[ #-]*` + last + `:`).MatchString(example) {
				t.Errorf("%s.yaml has no %s", name, k)
			}
		}
		for _, m := range regexp.MustCompile("(?m)^\\| `([a-z0-9_.]+)`").FindAllStringSubmatch(text, -1) {
			if !known[m[1]] {
				t.Errorf("%s, section %s, speaks of %s, which does not exist", reference, name, m[1])
			}
		}
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestExamplesLoad: the files as they stand are valid configurations.
func TestExamplesLoad(t *testing.T) {
	low, err := packer.LoadConfig(filepath.Join(examples, "bastion-packer.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	high, err := receiver.LoadConfig(filepath.Join(examples, "diode-receiver.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if high.Admin.Listen != "unix:/run/diode-receiver/admin.sock" || !strings.HasPrefix(high.Registry.Directory.Path, high.State+"/") {
		t.Errorf("the receiver's example does not fit its strict unit: admin %s, registry %s", high.Admin.Listen, high.Registry.Directory.Path)
	}
	if low.Link.Receiver != high.Receiver {
		t.Errorf("the examples do not fit one another: %s, %s", low.Link.Receiver, high.Receiver)
	}
	wantDefaults(t, low, high)
}

// wantDefaults holds the examples' words "default: X" to what they are: the value stands beside them, except where the unit needs another.
func wantDefaults(t *testing.T, low packer.Config, high receiver.Config) {
	t.Helper()
	l, h := packer.DefaultConfig(), receiver.DefaultConfig()
	for name, pair := range map[string][2]any{
		"state": {low.State, l.State}, "log": {low.Log, l.Log}, "admin": {low.Admin, l.Admin}, "hub": {low.Hub, l.Hub}, "gate": {low.Gate, l.Gate}, "audit": {low.Audit, l.Audit},
		"rate": {low.Link.Rate, l.Link.Rate}, "repair": {low.Link.Repair, l.Link.Repair}, "passes": {low.Link.Passes, l.Link.Passes}, "mtu": {low.Link.MTU, l.Link.MTU},
		"gso": {low.Link.GSO, l.Link.GSO}, "settle": {low.Link.Settle, l.Link.Settle}, "send_buffer": {low.Link.SendBuffer, l.Link.SendBuffer},
		"lifetime": {low.Seal.Lifetime, l.Seal.Lifetime}, "classification": {low.Seal.Classification, l.Seal.Classification}, "epoch": {low.Seal.Epoch, l.Seal.Epoch},
		"receiver's state": {high.State, h.State}, "receiver's log": {high.Log, h.Log}, "receiver's link": {high.Link, h.Link},
		"retain": {high.Retain, h.Retain}, "limits": {high.Limits, h.Limits},
	} {
		if !reflect.DeepEqual(pair[0], pair[1]) {
			t.Errorf("%s: the example has %v, the default is %v", name, pair[0], pair[1])
		}
	}
}

// TestExamplesCheck: once the files that they name exist, both checks are content. The policy is the example's, with real key ids.
func TestExamplesCheck(t *testing.T) {
	s := site(t)
	policy := read(t, filepath.Join(examples, "policy"))
	for letter, key := range map[string]string{"a": "a.roy", "b": "m.lee", "c": "s.ito", "d": "q.ali", "e": "q.tan", "f": "packer"} {
		policy = strings.Replace(policy, strings.Repeat(letter, 64), idOf(t, s.Path(key+".pub")), 1)
	}
	dir := t.TempDir()
	write(t, filepath.Join(dir, "policy"), policy)
	fingerprint := initTrust(t, s, filepath.Join(dir, "policy"), filepath.Join(dir, "trust.json"))
	for name, check := range map[string]func(path string) error{
		"bastion-packer.yaml": func(path string) error {
			c, err := packer.LoadConfig(path)
			if err != nil {
				return err
			}
			return packer.Check(c)
		},
		"diode-receiver.yaml": func(path string) error {
			c, err := receiver.LoadConfig(path)
			if err != nil {
				return err
			}
			return receiver.Check(c)
		},
	} {
		text := strings.NewReplacer(
			strings.Repeat("0", 64), fingerprint, "/etc/sluice/trust.json", filepath.Join(dir, "trust.json"),
			"/run/credentials/bastion-packer.service/packer-key", s.Path("packer"), "/run/credentials/bastion-packer.service/link-key", s.Path("link"),
			"/run/credentials/bastion-packer.service/passphrase", s.Path("passphrase"),
			"/run/credentials/diode-receiver.service/hpke", s.Path("rx-1"), "/run/credentials/diode-receiver.service/passphrase", s.Path("passphrase"),
		).Replace(read(t, filepath.Join(examples, name)))
		path := filepath.Join(dir, name)
		write(t, path, text)
		if err := check(path); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		write(t, path, strings.ReplaceAll(text, fingerprint, strings.Repeat("1", 64)))
		if err := check(path); err == nil {
			t.Errorf("%s: check takes another fingerprint", name)
		}
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// initTrust makes a trust object of the site's keys and a policy, and returns its fingerprint.
func initTrust(t *testing.T, s *clitest.Site, policy, out string) string {
	t.Helper()
	args := []string{"trust", "init", "--policy", policy, "--root", "release", "--out", out, "--link", s.Path("link.pub"), "--receiver", "rx-1=" + s.Path("rx-1.pub")}
	for _, k := range append(clitest.Officers(), "packer") {
		args = append(args, "--key", s.Path(k+".pub"))
	}
	var stdout, stderr bytes.Buffer
	if code := call(t, &stdout, &stderr, args...); code != 0 {
		t.Fatalf("trust init: exit %d: %s", code, stderr.String())
	}
	m := regexp.MustCompile(`fingerprint +([0-9a-f]{64})`).FindStringSubmatch(stdout.String())
	if m == nil {
		t.Fatalf("trust init printed %q", stdout.String())
	}
	return m[1]
}

func idOf(t *testing.T, pub string) string {
	t.Helper()
	_, id, _, _, err := mofn.ParsePublicFile([]byte(read(t, pub)))
	if err != nil {
		t.Fatal(err)
	}
	return id.String()
}
