// SPDX-License-Identifier: Apache-2.0

package checkpoint

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"path"
	"slices"
	"strings"
)

// The kinds of files, as FileKind.Kind names them. The first block is the allowlist for model-weights.
const (
	kindSafetensors   = "safetensors"
	kindJSON          = "json"
	kindText          = "text"
	kindTemplate      = "template"
	kindSentencePiece = "sentencepiece"
	kindPNG           = "png"
	kindJPEG          = "jpeg"
	kindParquet       = "parquet" // dataset only

	kindPickle     = "pickle"
	kindZip        = "zip"
	kindExecutable = "executable"
	kindUnknown    = "unknown"
)

const (
	sniffSize   = 4096     // bytes at the head of a file: every magic lies within
	maxTextFile = 64 << 20 // bytes
)

// magic is the signature of a kind that is refused by name, so that the finding can say what it is.
type magic struct {
	at   int
	sig  string
	kind string
}

// refusedMagics is a list for good messages, not a blocklist: what it misses is still not on the allowlist.
func refusedMagics() []magic {
	return []magic{
		{0, "PK\x03\x04", kindZip},
		{0, "PK\x05\x06", kindZip},
		{0, "PK\x07\x08", kindZip},
		{0, "\x80\x00", kindPickle},
		{0, "\x80\x01", kindPickle},
		{0, "\x80\x02", kindPickle},
		{0, "\x80\x03", kindPickle},
		{0, "\x80\x04", kindPickle},
		{0, "\x80\x05", kindPickle},
		{0, "\x93NUMPY", "npy"},
		{0, "\x89HDF\r\n\x1a\n", "hdf5"},
		{0, "GGUF", "gguf"},
		{0, "ggml", "ggml"},
		{0, "lmgg", "ggml"},
		{0, "tjgg", "ggml"},
		{0, "fmgg", "ggml"},
		{0, "\x7fELF", kindExecutable},
		{0, "MZ", kindExecutable},
		{0, "\xcf\xfa\xed\xfe", kindExecutable},
		{0, "\xce\xfa\xed\xfe", kindExecutable},
		{0, "\xca\xfe\xba\xbe", kindExecutable},
		{0, "\x00asm", kindExecutable},
		{0, "#!", kindExecutable},
		{0, "\x1f\x8b", "gzip"},
		{0, "BZh", "bzip2"},
		{0, "\xfd7zXZ\x00", "xz"},
		{0, "\x28\xb5\x2f\xfd", "zstd"},
		{0, "7z\xbc\xaf\x27\x1c", "7z"},
		{0, "Rar!", "rar"},
		{257, "ustar", "tar"},
		{0, "%PDF-", "pdf"},
		{4, "TFL3", "tflite"},
		{0, "SQLite format 3\x00", "sqlite"},
		{0, "GIF8", "gif"},
		{0, "RIFF", "riff"},
		{0, "OggS", "ogg"},
		{0, "ARROW1", "arrow"},
		{0, "OTTO", "font"},
		{0, "wOFF", "font"},
		{0, "\x08\x06\x12", "onnx"},
		{0, "\x08\x07\x12", "onnx"},
		{0, "\x08\x08\x12", "onnx"},
		{0, "\x08\x09\x12", "onnx"},
	}
}

// classify finds out what a file is and notes what is wrong with it.
func (in *inspector) classify(f *file) (string, error) {
	head := make([]byte, min(sniffSize, f.size))
	if err := readAt(f, head, 0); err != nil {
		return "", err
	}
	kind, err := in.kindOf(f, head)
	if err != nil {
		return "", err
	}
	if in.opt.Kind != kindModel && in.opt.Kind != kindDataset {
		return kind, nil
	}
	if rule, fix := refusal(kind, in.opt.Kind); rule != "" {
		in.refuse(rule, f.path, fix, "content is %s", kind)
		return kind, nil
	}
	if err := in.checkName(f, kind); err != nil {
		return kind, err
	}
	return kind, in.checkTail(f, kind)
}

// refusal tells by which rule a kind is refused, or "".
func refusal(kind, envelope string) (rule, fix string) {
	switch kind {
	case kindSafetensors, kindJSON, kindText, kindTemplate, kindSentencePiece, kindPNG, kindJPEG:
		return "", ""
	case kindParquet:
		if envelope == kindDataset {
			return "", ""
		}
	case kindPickle, kindZip, "npy":
		return RulePickle, "keep it out with the mirror's ignore patterns; take the safetensors form of the same weights"
	case kindExecutable:
		return RuleExecutable, "keep it out with the mirror's ignore patterns; code travels as a software-package"
	}
	return RuleFileKind, "keep it out with the mirror's ignore patterns"
}

// kindOf goes from the kinds that have a signature to those that have none. A checker that fails leaves its own finding and
// the kind that the content claimed to be.
func (in *inspector) kindOf(f *file, head []byte) (string, error) {
	for _, m := range refusedMagics() {
		if len(head) >= m.at+len(m.sig) && string(head[m.at:m.at+len(m.sig)]) == m.sig {
			return m.kind, nil
		}
	}
	switch {
	case bytes.HasPrefix(head, []byte("\x89PNG\r\n\x1a\n")):
		return kindPNG, in.checkImage(f, checkPNG)
	case bytes.HasPrefix(head, []byte("\xff\xd8\xff")):
		return kindJPEG, in.checkImage(f, checkJPEG)
	case bytes.HasPrefix(head, []byte("PAR1")):
		return kindParquet, nil
	case looksLikeSafetensors(head, f) || strings.HasSuffix(f.path, ".safetensors"):
		return kindSafetensors, in.checkSafetensors(f)
	case strings.HasSuffix(f.path, ".json"):
		return kindJSON, in.checkJSON(f)
	case len(head) > 0 && head[0] == 0x0a && isSentencePiece(f):
		return kindSentencePiece, nil
	}
	return in.textKind(f, head)
}

// looksLikeSafetensors: a plausible header length and the brace that must follow it.
func looksLikeSafetensors(head []byte, f *file) bool {
	if len(head) < 10 || head[8] != '{' {
		return false
	}
	n := binary.LittleEndian.Uint64(head)
	return n <= uint64(f.size) && head[7] == 0
}

func (in *inspector) checkSafetensors(f *file) error {
	s, err := ParseSafetensors(f, f.size)
	if errors.Is(err, ErrSafetensors) {
		in.refuse(RuleSafetensors, f.path, "fetch it again; if its hash is right, its author must write it anew", "%v", err)
		return nil
	}
	if err != nil {
		return err
	}
	if in.opt.Kind == kindModel { // only a model is looked at as a whole; a dataset may have 100,000 of them
		in.tensors[f.path] = s
	}
	for key := range s.Metadata {
		if key != "format" {
			in.remark(RuleSafetensors, f.path, "nothing, if the text is harmless: loaders do not read it", "the header carries text of its own (%d entries)", len(s.Metadata))
			break
		}
	}
	return nil
}

// checkJSON scans a JSON file, whatever it is for, and looks for keys that make loaders run code.
func (in *inspector) checkJSON(f *file) error {
	if f.size > maxJSONFile {
		in.refuse(RuleJSON, f.path, "leave it out", "%d bytes: want at most %d", f.size, maxJSONFile)
		return nil
	}
	root, err := scanJSON(f.all(), in.codeKeys(f.path))
	if errors.Is(err, errJSON) {
		in.refuse(RuleJSON, f.path, "its author must write strict JSON", "%v", err)
		return nil
	}
	if _, ok := root.(json.Delim); err == nil && !ok {
		in.refuse(RuleJSON, f.path, "leave it out", "neither an object nor a list")
	}
	return err
}

// textKind is for what has no signature: plain UTF-8 under a name that is known for text.
func (in *inspector) textKind(f *file, head []byte) (string, error) {
	if pickleText(head, f) {
		return kindPickle, nil
	}
	if f.size > maxTextFile {
		return kindUnknown, nil
	}
	var t textCheck
	if _, err := io.Copy(&t, f.all()); err != nil {
		return "", err
	}
	switch {
	case t.finish() != nil || !textName(f.path):
		return kindUnknown, nil //nolint:nilerr // what is no text is a finding about the file, and not a failure
	case markup(head):
		return "markup", nil
	case strings.HasSuffix(f.path, ".jinja"):
		return kindTemplate, nil
	}
	return kindText, nil
}

// textCheck refuses control characters (terminals obey them) beside bad UTF-8. C1 controls pass: vocabularies hold them.
type textCheck struct {
	utf8Check
	control error
}

var errControl = errors.New("control character")

func (t *textCheck) Write(p []byte) (int, error) {
	if t.control == nil && bytes.ContainsFunc(p, func(r rune) bool {
		return r < 0x20 && r != '\t' && r != '\n' && r != '\r' && r != '\f' || r == 0x7f
	}) {
		t.control = errControl
	}
	return t.utf8Check.Write(p)
}

func (t *textCheck) finish() error { return errors.Join(t.control, t.utf8Check.finish()) }

// textName is the allowlist of names for content without a signature.
func textName(p string) bool {
	base := path.Base(p)
	switch path.Ext(base) {
	case ".txt", ".md", ".jinja", ".jsonl", ".csv", ".tsv", ".yaml", ".yml", ".tiktoken", ".model", ".bib", ".cff", ".gitattributes", ".gitignore":
		return true
	case "":
		upper := strings.ToUpper(base)
		return slices.ContainsFunc([]string{"LICENSE", "LICENCE", "COPYING", "NOTICE", "README", "USE_POLICY", "AUTHORS", "CITATION"}, func(s string) bool {
			return strings.HasPrefix(upper, s)
		})
	}
	return false
}

// markup finds text that a viewer would run: HTML, SVG, XML, PHP.
func markup(head []byte) bool {
	s := strings.ToLower(string(bytes.TrimLeft(bytes.TrimPrefix(head, []byte("\xef\xbb\xbf")), " \t\r\n\f")))
	return slices.ContainsFunc([]string{"<!doctype", "<html", "<svg", "<?", "<script"}, func(p string) bool { return strings.HasPrefix(s, p) })
}

// pickleText finds pickles of protocol 0, which are plain ASCII: they begin with an opcode that builds something and end in
// STOP ('.').
func pickleText(head []byte, f *file) bool {
	if len(head) < 3 || f.size > maxTextFile {
		return false
	}
	last := make([]byte, 1)
	if readAt(f, last, f.size-1) != nil || last[0] != '.' {
		return false
	}
	line, _, ok := bytes.Cut(head, []byte("\n"))
	switch {
	case !ok:
		return false
	case head[0] == 'c' || head[0] == 'i':
		return isIdentifier(line[1:]) && globalName(head)
	case head[0] == '(':
		return bytes.ContainsAny(head[1:2], "dlitcSVIFLM(")
	}
	return head[0] == ']' || head[0] == '}' || head[0] == ')'
}

// globalName tells whether the second line is an identifier too: GLOBAL is "c<module>\n<name>\n".
func globalName(head []byte) bool {
	parts := bytes.SplitN(head, []byte("\n"), 3)
	return len(parts) == 3 && isIdentifier(parts[1])
}

func isIdentifier(b []byte) bool {
	for _, c := range b {
		if !(c == '_' || c == '.' || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z') {
			return false
		}
	}
	return len(b) > 0
}

// checkName refuses names by which a loader would take the content for something else.
func (in *inspector) checkName(f *file, kind string) error {
	ext := strings.ToLower(path.Ext(f.path))
	want := map[string][]string{
		kindSafetensors:   {".safetensors"},
		kindJSON:          {".json"},
		kindSentencePiece: {".model", ".spm"},
		kindPNG:           {".png"},
		kindJPEG:          {".jpg", ".jpeg"},
		kindParquet:       {".parquet"},
		kindTemplate:      {".jinja"},
	}[kind]
	if want != nil && !slices.Contains(want, ext) {
		in.refuse(RuleName, f.path, "rename it, or leave it out", "content is %s: want the extension %s", kind, strings.Join(want, " or "))
	}
	if kind != kindText {
		return nil
	}
	if ext == ".yaml" || ext == ".yml" {
		return in.checkYAML(f)
	}
	if ext == ".model" {
		return in.checkTiktoken(f)
	}
	return nil
}

// checkYAML refuses tags: a YAML loader of the careless sort makes objects from them.
func (in *inspector) checkYAML(f *file) error {
	b := make([]byte, f.size)
	if err := readAt(f, b, 0); err != nil {
		return err
	}
	if bytes.Contains(b, []byte("!!python")) || bytes.Contains(b, []byte("!<")) || bytes.Contains(b, []byte("!!java")) {
		in.refuse(RuleRemoteCode, f.path, "remove the file", "YAML with a tag that makes objects")
	}
	return nil
}

// checkTiktoken: a .model file that is text must be a list of "<base64> <rank>" lines, as tiktoken writes it.
func (in *inspector) checkTiktoken(f *file) error {
	b := make([]byte, f.size)
	if err := readAt(f, b, 0); err != nil {
		return err
	}
	for line := range bytes.Lines(b) {
		token, rank, ok := bytes.Cut(bytes.TrimSuffix(line, []byte("\n")), []byte(" "))
		if !ok || len(token)%4 != 0 || !isDigits(rank) {
			in.refuse(RuleFileKind, f.path, "fetch it again; a Git LFS pointer is not the file", "a .model file that is neither SentencePiece nor tiktoken")
			return nil
		}
	}
	return nil
}

func isDigits(b []byte) bool {
	for _, c := range b {
		if c < '0' || c > '9' {
			return false
		}
	}
	return len(b) > 0
}

const zipTail = 22 + 65535 // bytes: a zip's end record and the longest comment behind it

// checkTail looks for a zip archive at the end of the file: zip readers begin there, whatever the file begins with.
func (in *inspector) checkTail(f *file, kind string) error {
	tail := make([]byte, min(zipTail, f.size))
	if err := readAt(f, tail, f.size-int64(len(tail))); err != nil {
		return err
	}
	for i := len(tail) - 22; i >= 0; i-- {
		if tail[i] != 'P' || string(tail[i:i+4]) != "PK\x05\x06" {
			continue
		}
		if comment := int(binary.LittleEndian.Uint16(tail[i+20:])); i+22+comment == len(tail) {
			in.refuse(RulePolyglot, f.path, "do not use this source", "%s with a zip archive at its end", kind)
			return nil
		}
	}
	return nil
}
