// SPDX-License-Identifier: Apache-2.0

package registry_test

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"sluice/pkg/envelope/envelopetest"
	"sluice/pkg/registry"
)

var (
	hexA = strings.Repeat("a1", 32)
	hexB = strings.Repeat("b2", 32)
)

// good holds one accepted object of each kind.
func good() map[string]string {
	entry := `{"name":"llama","version":"1.0","stream":"models/llm","epoch":1,"seq":2,"release":"` + hexA +
		`","kind":"model-weights","published":"2026-11-22T10:00:00Z"}`
	prov := `{"path":"envelope.sluice","size":3,"sha256":"` + hexB + `"},{"path":"release.json","size":4,"sha256":"` + hexB + `"}`
	return map[string]string{
		"withdrawal": `{"type":"sluice-withdrawal-v1","name":"llama","release":"` + hexA + `","withdrawn":true,"final":true,"reason":"é & <why>","orders":["` +
			hexA + `","` + hexB + `"],"at":"2026-11-22T10:00:00Z","receiver":"r"}`,
		"commit": `{"type":"sluice-commit-v1","release":"` + hexA + `","receipt":"` + hexB + `","directory_digest":"` + hexA + `","files":2,"bytes":7}`,
		"channel": `{"type":"sluice-channel-v1","name":"llama","release":"` + hexA +
			`","stream":"models/llm","epoch":1,"seq":2,"serial":3}`,
		"catalog": `{"type":"sluice-catalog-v1","serial":1,"prev":"","entries":[` + entry + `]}`,
		"receipt": `{"type":"sluice-receipt-v1","release":"` + hexA + `","name":"llama","version":"1.0","stream":"models/llm",` +
			`"epoch":1,"seq":2,"kind":"model-weights","files":[{"path":"a<b","size":0,"sha256":"` + hexA +
			`","version_id":"v"},{"path":"b/c","size":7,"sha256":"` + hexB + `"}],"provenance":[` + prov +
			`],"receiver":"r","started":"2026-11-22T09:00:00Z","finished":"2026-11-22T10:00:00Z"}`,
	}
}

func TestFormatsAccept(t *testing.T) {
	for kind, text := range good() {
		if _, err := registry.Parsers()[kind]([]byte(text)); err != nil {
			t.Errorf("%s: %v", kind, err)
		}
	}
}

// TestFormatsOfWithdrawals: what other values mean is accepted too.
func TestFormatsOfWithdrawals(t *testing.T) {
	for _, test := range []struct{ kind, from, to string }{
		{"catalog", `Z"}`, `Z","withdrawn":"suspended"}`},
		{"catalog", `Z"}`, `Z","withdrawn":"revoked"}`},
		{"channel", `"release":"` + hexA + `","stream":"models/llm","epoch":1,"seq":2,"serial":3`, `"release":"","stream":"","epoch":0,"seq":0,"serial":0`},
		{"withdrawal", `"withdrawn":true,"final":true`, `"withdrawn":true,"final":false`},
		{"withdrawal", `"withdrawn":true,"final":true`, `"withdrawn":false,"final":false`},
		{"withdrawal", "é & <why>", strings.Repeat("é", 256)},
		{"withdrawal", `:"r"`, `:""`},
	} {
		text := strings.Replace(good()[test.kind], test.from, test.to, 1)
		if _, err := registry.Parsers()[test.kind]([]byte(text)); err != nil || text == good()[test.kind] {
			t.Errorf("%s with %s for %s: %v", test.kind, test.to, test.from, err)
		}
	}
}

// TestFormatsRefuse changes one thing of a good object at a time.
func TestFormatsRefuse(t *testing.T) {
	for _, test := range []struct{ kind, from, to string }{
		{"commit", `"files":2`, `"files":0`},
		{"commit", `"files":2`, `"files":2.0`},
		{"commit", `"bytes":7`, `"bytes":-1`},
		{"commit", `"bytes":7}`, `"bytes":7,"x":1}`},
		{"commit", `"bytes":7}`, `"bytes":7} `},
		{"commit", `"bytes":7}`, `"bytes":7}{}`},
		{"commit", `"files":2`, `"files":2,"files":2`},
		{"commit", `"files"`, `"Files"`},
		{"commit", "-v1", "-v2"},
		{"commit", hexB, hexB[2:]},
		{"commit", hexB, strings.ToUpper(hexB)},
		{"commit", hexB, strings.Repeat("g", 64)},
		{"channel", "llama", "../x"},
		{"channel", `"seq":2`, `"seq":0`},
		{"channel", `"serial":3`, `"serial":0`},
		{"channel", "models/llm", "models//llm"},
		{"channel", "-v1", "-v2"},
		{"catalog", `"serial":1`, `"serial":2`},
		{"catalog", `"prev":""`, `"prev":"` + hexA + `"`},
		{"catalog", "-v1", "-v2"},
		{"catalog", `"epoch":1`, `"epoch":-1`},
		{"catalog", "22T10", "22 10"},
		{"catalog", `"1.0"`, `""`},
		{"catalog", "model-weights", "Model"},
		{"catalog", `"entries":[`, `"entries":null,"x":[`},
		{"catalog", `Z"}`, `Z","withdrawn":""}`},
		{"catalog", `Z"}`, `Z","withdrawn":"stopped"}`},
		{"channel", hexA, ""},
		{"channel", `"release":"` + hexA + `","stream":"models/llm","epoch":1,"seq":2`, `"release":"","stream":"","epoch":0,"seq":0`},
		{"withdrawal", "-v1", "-v2"},
		{"withdrawal", "llama", "../x"},
		{"withdrawal", hexA, hexA[2:]},
		{"withdrawal", `"withdrawn":true`, `"withdrawn":false`},
		{"withdrawal", `"withdrawn":true`, `"withdrawn":1`},
		{"withdrawal", "é & <why>", ""},
		{"withdrawal", "é & <why>", `\u001b[2J`},
		{"withdrawal", "é & <why>", "\u0085"},
		{"withdrawal", "é & <why>", strings.Repeat("é", 257)},
		{"withdrawal", `["` + hexA + `","` + hexB + `"]`, "[]"},
		{"withdrawal", `["` + hexA + `","` + hexB + `"]`, "null"},
		{"withdrawal", `["` + hexA + `","` + hexB + `"]`, `["` + hexB + `","` + hexA + `"]`},
		{"withdrawal", `["` + hexA + `","` + hexB + `"]`, `["` + hexA + `","` + hexA + `"]`},
		{"withdrawal", `["` + hexA + `","` + hexB + `"]`, `["` + strings.ToUpper(hexA) + `"]`},
		{"withdrawal", "00Z", "00+01:00"},
		{"withdrawal", "T10", " 10"},
		{"withdrawal", `:"r"`, `:"r\n"`},
		{"withdrawal", `:"r"`, `:"` + strings.Repeat("r", 129) + `"`},
		{"receipt", "b/c", "../c"},
		{"receipt", "b/c", "a"},
		{"receipt", "b/c", "/c"},
		{"receipt", "a<b", `a\u003cb`},
		{"receipt", `"size":7`, `"size":-7`},
		{"receipt", `"size":7`, `"size":9007199254740992`},
		{"receipt", `"version_id":"v"`, `"version_id":""`},
		{"receipt", "-v1", "-v2"},
		{"receipt", "envelope.sluice", "z"},
		{"receipt", "00Z\"}", "00\"}"},
	} {
		text := good()[test.kind]
		bad := strings.Replace(text, test.from, test.to, 1)
		if bad == text {
			t.Errorf("%s: %q does not occur", test.kind, test.from)
		}
		if _, err := registry.Parsers()[test.kind]([]byte(bad)); !errors.Is(err, registry.ErrCorrupt) {
			t.Errorf("%s with %s for %s: %v", test.kind, test.to, test.from, err)
		}
	}
}

// TestReceiptProvenance: envelope, statement, 16 reports, a model signature, and no more.
func TestReceiptProvenance(t *testing.T) {
	for n, ok := range map[int]bool{17: true, 18: false} {
		extra := ""
		for i := range n {
			extra += fmt.Sprintf(`{"path":"evidence/%02d","size":1,"sha256":"%s"},`, i, hexA)
		}
		text := strings.Replace(good()["receipt"], `{"path":"release.json"`, extra+`{"path":"release.json"`, 1)
		if _, err := registry.Parsers()["receipt"]([]byte(text)); (err == nil) != ok {
			t.Errorf("%d provenance objects: %v", n+2, err)
		}
	}
}

// TestFormatTricks: every place of every object, in every spelling that another JSON parser takes.
func TestFormatTricks(t *testing.T) {
	for kind, text := range good() {
		for _, trick := range envelopetest.Tricks([]byte(text)) {
			if _, err := registry.Parsers()[kind](trick.JSON); !errors.Is(err, registry.ErrCorrupt) {
				t.Errorf("%s, %s: %v\n%.300q", kind, trick.Name, err, trick.JSON)
			}
		}
	}
}

func TestSerialKey(t *testing.T) {
	for _, n := range []int64{1, 12, 999_999_999_999} {
		if got, ok := registry.ParseSerialKey(registry.SerialKey(n)); !ok || got != n {
			t.Errorf("serial %d: %d, %v", n, got, ok)
		}
	}
	for _, key := range []string{
		"catalog/serial-000000000000.json", "catalog/serial-1.json", "catalog/serial-+00000000001.json",
		"catalog/serial-000000000001.json.bak", "catalog/serial-0000000000001.json", "serial-000000000001.json",
	} {
		if _, ok := registry.ParseSerialKey(key); ok {
			t.Errorf("%s accepted", key)
		}
	}
}

func TestWithdrawalKey(t *testing.T) {
	if name, id, ok := registry.ParseWithdrawalKey("withdrawals/llama/sha256-" + hexA + ".json"); !ok || name != "llama" || id != hexA {
		t.Errorf("%s, %s, %v", name, id, ok)
	}
	for _, key := range []string{
		"withdrawals/llama/sha256-" + hexA, "withdrawals/llama/sha256-" + hexA + ".json.json", "withdrawals/Llama/sha256-" + hexA + ".json",
		"withdrawals/llama/" + hexA + ".json", "withdrawals/llama/x/sha256-" + hexA + ".json", "llama/sha256-" + hexA + ".json",
		"withdrawals/sha256-" + hexA + ".json", "withdrawals/llama/sha256-" + strings.ToUpper(hexA) + ".json", "withdrawals/", "",
	} {
		if _, _, ok := registry.ParseWithdrawalKey(key); ok {
			t.Errorf("%s accepted", key)
		}
	}
}

func TestNames(t *testing.T) {
	long := strings.Repeat("a", 128)
	for name, want := range map[string]bool{
		"a": true, "0.b-c_d": true, long: true, long + "a": false, "": false, ".a": false, "-a": false,
		"A": false, "a/b": false, "a b": false, "é": false, "a\x00": false,
	} {
		if got := registry.ValidName(name); got != want {
			t.Errorf("name %q: %v", name, got)
		}
	}
	for stream, want := range map[string]bool{
		"models/llm": true, "a": true, "a/.b": true, long: true, long + "a": false, "": false, "/a": false,
		"a/": false, "a//b": false, ".a/b": false, "a/B": false,
	} {
		if got := registry.ValidStream(stream); got != want {
			t.Errorf("stream %q: %v", stream, got)
		}
	}
	for path, want := range map[string]bool{
		"a": true, "a/b c/é": true, strings.Repeat("a", 255): true, strings.Repeat("a", 256): false,
		strings.Repeat("a/", 31) + "a": true, strings.Repeat("a/", 32) + "a": false,
		"": false, ".": false, "..": false, "a/../b": false, "a/./b": false, "a//b": false, "/a": false, "a/": false,
		"a\\b": false, "a:b": false, "a\nb": false, "a\u0085b": false, "\xff": false, "a\x7f": false,
	} {
		if got := registry.ValidPath(path) == nil; got != want {
			t.Errorf("path %q: %v", path, got)
		}
	}
}

// FuzzParsers: whatever is accepted encodes to the same bytes, and nothing panics.
func FuzzParsers(f *testing.F) {
	for kind, text := range good() {
		f.Add(kind, []byte(text))
		f.Add(kind, []byte(text[:len(text)/2]))
	}
	f.Add("commit", []byte("{}"))
	f.Add("catalog", []byte(`{"entries":null}`))
	f.Add("receipt", []byte(`{"files":[{"path":"\ud800"}]}`))
	f.Fuzz(func(t *testing.T, kind string, data []byte) {
		parse, ok := registry.Parsers()[kind]
		if !ok {
			return
		}
		v, err := parse(data)
		if err != nil {
			if !errors.Is(err, registry.ErrCorrupt) {
				t.Errorf("refused without ErrCorrupt: %v", err)
			}
			return
		}
		again, err := registry.Encode(v)
		if err != nil || !bytes.Equal(again, data) {
			t.Errorf("accepted %q, encodes to %q, %v", data, again, err)
		}
	})
}
