// SPDX-License-Identifier: Apache-2.0

package envelope_test

import (
	"encoding/base64"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sluice/pkg/envelope"
)

// TestStartOfGoodReleases: wherever a good release section is cut off, its beginning is no mistake.
func TestStartOfGoodReleases(t *testing.T) {
	names, err := filepath.Glob("../../testdata/vectors/envelope/good-*.sluice")
	if err != nil || len(names) == 0 {
		t.Fatal("no vectors", err)
	}
	for _, name := range names {
		f, err := os.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		env, err := envelope.Read(f)
		if err = errors.Join(err, f.Close()); err != nil {
			t.Fatal(err)
		}
		for n := len(`{"payload":"`); n <= min(len(env.Release), 64<<10); n++ {
			if err := envelope.CheckStart(env.Release[:n]); err != nil {
				t.Fatalf("%s, cut off after %d of %d bytes: %v", filepath.Base(name), n, len(env.Release), err)
			}
		}
	}
}

// TestStartOfRubbish: what is wrong within the first 64 KiB is refused there.
func TestStartOfRubbish(t *testing.T) {
	head := `{"_type":"https://in-toto.io/Statement/v1","subject":[`
	wrap := func(payload string) string {
		return `{"payload":"` + base64.StdEncoding.EncodeToString([]byte(payload+strings.Repeat("x", 3*(64<<10))))
	}
	for name, start := range map[string]string{
		"zeros":             strings.Repeat("\x00", 64<<10),
		"another object":    `{"payloadType":"` + strings.Repeat("A", 64<<10),
		"lists":             wrap(strings.Repeat("[", 64<<10)),
		"objects":           wrap(strings.Repeat(`{"_type":`, 8<<10)),
		"empty subjects":    wrap(head + strings.Repeat(`{},`, 16<<10)),
		"a long name":       wrap(head + `{"name":"` + strings.Repeat("x", 64<<10)),
		"a name of escapes": wrap(head + `{"name":"` + strings.Repeat(`\u0000`, 16<<10)),
		"a short digest":    wrap(head + `{"name":"a","digest":{"sha256":"abc"`),
	} {
		if err := envelope.CheckStart([]byte(start[:64<<10])); !errors.Is(err, envelope.ErrFormat) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// A name is what it is however it is written: the longest path in the longest escapes passes.
	longest := head + `{"name":"` + strings.Repeat(`\u0001`, envelope.MaxPath) + `","digest":{"sha256":"`
	if err := envelope.CheckStart([]byte(`{"payload":"` + base64.StdEncoding.EncodeToString([]byte(longest)))); err != nil {
		t.Error(err)
	}
}
