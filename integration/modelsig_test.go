// SPDX-License-Identifier: Apache-2.0

package integration_test

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"sluice/integration/lab"
	"sluice/pkg/envelope"
)

// tool is the public Python tool of OpenSSF Model Signing: on the PATH, or where `make model-signing` puts it.
func tool(t *testing.T) string {
	t.Helper()
	if found, err := exec.LookPath("model_signing"); err == nil {
		return found
	}
	ours, err := filepath.Abs("../.cache/model-signing/bin/model_signing")
	must(t, err)
	if _, err := os.Stat(ours); err != nil {
		t.Skip("the public tool model_signing is not here: it did NOT verify our bundle; make model-signing installs it (python3 with pip)")
	}
	return ours
}

// publishedModel publishes a small model with the binaries, and gives its directory, its bundle, and the enclave's public key.
func publishedModel(t *testing.T) (model, bundle, key string) {
	t.Helper()
	s := newSite(t)
	_ = listening(t, s)
	dir := s.Path("model")
	head := `{"w":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}}   `
	for name, content := range map[string]string{
		".gitattributes": "*.safetensors filter=lfs\n", ".gitignore": "x\n", "README.md": "", "vocab.txt": "a\n", "tokenizer_config.json": "{}",
		"config.json": `{"model_type":"x"}`, "deep/é <&>.txt": "text\n",
		"model.safetensors": string(binary.LittleEndian.AppendUint64(nil, uint64(len(head)))) + head + "abcd",
	} {
		file := filepath.Join(dir, "payload", filepath.FromSlash(name))
		must(t, os.MkdirAll(filepath.Dir(file), 0o755))
		must(t, os.WriteFile(file, []byte(content), 0o600))
	}
	env, err := s.SealModel(t.Context(), dir, 1, lab.Security()[:2]...)
	must(t, err)
	if out := call(t, s, "diode-receiver", "import", "--config", s.Path("high.yaml"), "--wait", dir); !strings.Contains(out, "PUBLISHED") {
		t.Fatal(out)
	}
	clean(t, s)
	where := filepath.Join("lab-model", "sha256-"+env.ID.String())
	return s.Path("registry", "releases", where), s.Path("registry", "provenance", where, "model.sig"), s.Path("keys", "model.pub")
}

// verdict runs the tool as docs/interop.md says.
func verdict(ctx context.Context, tool, model, bundle, key string, more ...string) (string, error) {
	args := append([]string{"verify", "key", "--no-ignore-git-paths", "--signature", bundle, "--public_key", key}, more...)
	out, err := exec.CommandContext(ctx, tool, append(args, model)...).CombinedOutput()
	return string(out), err
}

// TestModelSigningTool: the public tool accepts what was published, and refuses every change of it.
func TestModelSigningTool(t *testing.T) {
	python := tool(t)
	model, bundle, key := publishedModel(t)
	if out, err := verdict(t.Context(), python, model, bundle, key); err != nil || !strings.Contains(out, "Verification succeeded") {
		t.Fatalf("%v: %s", err, out)
	}
	// Its default leaves out what git has at the top: so a file is missing, and not accepted unseen.
	if out, err := exec.CommandContext(t.Context(), python, "verify", "key", "--signature", bundle, "--public_key", key, model).CombinedOutput(); err == nil ||
		!strings.Contains(string(out), "Missing files") || !strings.Contains(string(out), ".gitattributes, .gitignore") {
		t.Errorf("without the flag: %v: %s", err, out)
	}
	original, err := os.ReadFile(bundle)
	must(t, err)
	for _, c := range []struct {
		name, says string
		spoil      func(dir string) error
		bundle     func(text string) string
	}{
		{"a flipped byte", "Hash mismatch for", func(dir string) error { return flipLast(filepath.Join(dir, "model.safetensors")) }, nil},
		{"a flipped byte where git looks", "Hash mismatch for", func(dir string) error { return flipLast(filepath.Join(dir, ".gitattributes")) }, nil},
		{"a file more", "Extra files", func(dir string) error { return os.WriteFile(filepath.Join(dir, "more.bin"), []byte("x"), 0o600) }, nil},
		{"a file less", "Missing files", func(dir string) error { return os.Remove(filepath.Join(dir, "README.md")) }, nil},
		{"a file with another name", "Extra files", func(dir string) error {
			return os.Rename(filepath.Join(dir, "vocab.txt"), filepath.Join(dir, "vocab2.txt"))
		}, nil},
		{"a flipped byte in the statement", "", nil, func(text string) string { return strings.Replace(text, `"payload":"eyJ`, `"payload":"eyB`, 1) }},
		{"another digest in the statement", "", nil, otherDigest},
		{"a flipped byte in the signature", "", nil, otherSignature},
		{"another key named", "Key mismatch", nil, func(text string) string { return strings.Replace(text, `"hint":"`, `"hint":"00`, 1) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir, sig := filepath.Join(t.TempDir(), filepath.Base(model)), filepath.Join(t.TempDir(), "model.sig")
			must(t, os.CopyFS(dir, os.DirFS(model)))
			text := string(original)
			if c.bundle != nil {
				if text = c.bundle(text); text == string(original) {
					t.Fatal("nothing was changed")
				}
			}
			must(t, os.WriteFile(sig, []byte(text), 0o600))
			if out, err := verdict(t.Context(), python, dir, sig, key); c.spoil != nil && err != nil {
				t.Fatalf("the copy, before it was changed: %v: %s", err, out)
			}
			if c.spoil != nil {
				must(t, c.spoil(dir))
			}
			out, err := verdict(t.Context(), python, dir, sig, key)
			if err == nil || strings.Contains(out, "succeeded") || !strings.Contains(out, c.says) {
				t.Errorf("%v: %s", err, out)
			}
		})
	}
	other := filepath.Join(t.TempDir(), "other.pub")
	makeKey(t, other)
	if out, err := verdict(t.Context(), python, model, bundle, other); err == nil || !strings.Contains(out, "Key mismatch") {
		t.Errorf("under another key: %v: %s", err, out)
	}
}

// flipLast changes the last byte of a file.
func flipLast(name string) error {
	b, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	b[len(b)-1] ^= 1
	return os.WriteFile(name, b, 0o600)
}

// otherDigest changes the digest of one file in the signed statement, as somebody would who changed the file too.
func otherDigest(text string) string {
	head, rest, _ := strings.Cut(text, `"payload":"`)
	payload, tail, _ := strings.Cut(rest, `"`)
	b, err := base64.StdEncoding.DecodeString(payload)
	if err != nil {
		panic(err)
	}
	sum := strings.Split(string(b), `"digest":"`)[1][:64]
	changed := strings.Replace(string(b), sum, strings.Repeat("0", 64), 1)
	return head + `"payload":"` + base64.StdEncoding.EncodeToString([]byte(changed)) + `"` + tail
}

// otherSignature changes one bit within the second of the two numbers.
func otherSignature(text string) string {
	head, rest, _ := strings.Cut(text, `"sig":"`)
	encoded, tail, _ := strings.Cut(rest, `"`)
	b, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil {
		panic(err)
	}
	b[len(b)-10] ^= 1
	return head + `"sig":"` + base64.StdEncoding.EncodeToString(b) + `"` + tail
}

func makeKey(t *testing.T, public string) {
	t.Helper()
	call(t, newSite(t), "diode-receiver", "keys", "generate", "--use", "model-signing", "--out", strings.TrimSuffix(public, ".pub"))
}

// TestModelSignatureSecondReader has the second reader of the registry judge one that holds a model signature.
func TestModelSignatureSecondReader(t *testing.T) {
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("python3 is not here: the second reader of the registry did NOT run")
	}
	_, bundle, _ := publishedModel(t)
	registry := strings.SplitAfter(bundle, "/registry/")[0]
	out, err := exec.CommandContext(t.Context(), python, "../testdata/vectors/registry/check_registry.py", "-t", registry).CombinedOutput()
	if err != nil || strings.TrimSpace(string(out)) != "" {
		t.Errorf("%v: %s", err, out)
	}
}

// TestModelSignatureCoversTheRelease reads the bundle with nothing but the texts of OMS 1.0, and holds it against the release statement.
func TestModelSignatureCoversTheRelease(t *testing.T) {
	model, bundle, _ := publishedModel(t)
	var b struct {
		DSSEEnvelope struct{ Payload []byte }
	}
	text, err := os.ReadFile(bundle)
	must(t, err)
	must(t, json.Unmarshal(text, &b))
	var s struct {
		Subject   []struct{ Name string }
		Predicate struct {
			Resources []struct{ Name, Digest, Algorithm string }
		}
	}
	must(t, json.Unmarshal(b.DSSEEnvelope.Payload, &s))
	env, err := os.Open(filepath.Join(filepath.Dir(bundle), "envelope.sluice"))
	must(t, err)
	defer env.Close()
	release, err := envelope.Read(env)
	must(t, err)
	var got, want []string
	for _, r := range s.Predicate.Resources {
		got = append(got, fmt.Sprint(r.Name, " ", r.Digest, " ", r.Algorithm))
	}
	for _, f := range release.Statement.Subjects {
		want = append(want, fmt.Sprint(f.Name, " ", f.Digest.SHA256, " sha256"))
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") || len(want) != 8 {
		t.Errorf("the bundle covers\n%v\nthe release has\n%v", got, want)
	}
	if len(s.Subject) != 1 || s.Subject[0].Name != filepath.Base(model) {
		t.Errorf("subject %v of %s", s.Subject, model)
	}
}
