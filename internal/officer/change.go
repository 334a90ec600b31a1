// SPDX-License-Identifier: Apache-2.0

package officer

import (
	"path"
	"slices"
	"strings"

	"sluice/pkg/envelope"
)

// fileChange is one file that is not as it was.
type fileChange struct {
	Mark     byte // '+' added, '~' changed, '-' removed
	Name     string
	Old, New int64 // bytes
}

// change is a release against its predecessor, by what the two statements say.
type change struct {
	Files              []fileChange // changed, removed, added; each by name
	Added, Changed     int
	Removed, Unchanged int
	Weights            int // unchanged files of weights
	Size, OldSize      int64
}

// changes compares two statements; prev may be nil: every file is new.
func changes(st, prev *envelope.Statement) change {
	c := change{Size: st.Predicate.TotalSize}
	old := map[string]envelope.Subject{}
	if prev != nil {
		c.OldSize = prev.Predicate.TotalSize
		for _, s := range prev.Subjects {
			old[s.Name] = s
		}
	}
	var added, changed, removed []fileChange
	for _, s := range st.Subjects {
		was, known := old[s.Name]
		delete(old, s.Name)
		switch {
		case !known:
			added = append(added, fileChange{'+', s.Name, 0, s.Annotations.Size})
		case was.Digest != s.Digest:
			changed = append(changed, fileChange{'~', s.Name, was.Annotations.Size, s.Annotations.Size})
		default:
			c.Unchanged++
			if isWeights(s.Name) {
				c.Weights++
			}
		}
	}
	for _, name := range sortedKeys(old) {
		removed = append(removed, fileChange{'-', name, old[name].Annotations.Size, 0})
	}
	c.Added, c.Changed, c.Removed = len(added), len(changed), len(removed)
	c.Files = slices.Concat(changed, removed, added)
	return c
}

func extension(name string) string { return strings.ToLower(path.Ext(name)) }

func isWeights(name string) bool {
	return slices.Contains([]string{".safetensors", ".gguf"}, extension(name))
}

// danger says what a file can do to whoever uses it, by its name; "": nothing that is known. The inspection looks at the bytes; this is for
// the eye, and for kinds of release that are not inspected.
func danger(name string) string {
	switch extension(name) {
	case ".py", ".pyc", ".pyd", ".so", ".dll", ".dylib", ".exe", ".sh", ".bash", ".ps1", ".bat", ".cmd", ".js", ".mjs", ".jar", ".class", ".rb", ".pl", ".lua", ".wasm", ".ko":
		return "executable code"
	case ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib", ".dill":
		return "a pickle: it runs code when it is loaded"
	case ".bin", ".npy", ".npz", ".h5", ".keras", ".mar":
		return "it may hold a pickle or code, which runs when it is loaded"
	case ".whl", ".deb", ".rpm", ".apk", ".msi", ".dmg", ".appimage":
		return "a package: it runs code when it is installed"
	case ".zip", ".tar", ".gz", ".tgz", ".xz", ".zst", ".bz2", ".7z":
		return "an archive: what is in it is not listed here"
	case ".jinja", ".jinja2":
		return "a template: loaders run it"
	}
	return ""
}

// isLicence tells the files that people put terms into.
func isLicence(name string) bool {
	base := strings.ToUpper(path.Base(name))
	for _, word := range []string{"LICENSE", "LICENCE", "COPYING", "NOTICE", "USE_POLICY"} {
		if strings.HasPrefix(base, word) {
			return true
		}
	}
	return false
}

// newKinds are the extensions that the predecessor had no file of.
func newKinds(st, prev *envelope.Statement) []string {
	had := map[string]bool{}
	for _, s := range prev.Subjects {
		had[extension(s.Name)] = true
	}
	fresh := map[string]bool{}
	for _, s := range st.Subjects {
		if ext := extension(s.Name); !had[ext] {
			fresh[ext] = true
		}
	}
	return sortedKeys(fresh)
}
