// SPDX-License-Identifier: Apache-2.0

package hubtest_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sluice/internal/hub/hubtest"
)

func start(t *testing.T) (srv *hubtest.Server, url, commit string) {
	t.Helper()
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "sub"), 0o755); err != nil {
		t.Fatal(err)
	}
	for p, b := range map[string]string{"config.json": "{}", "sub/a.txt": "hello\n", "m.safetensors": "weights"} {
		if err := os.WriteFile(filepath.Join(dir, p), []byte(b), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	srv = hubtest.New()
	commit, err := srv.AddRepo("org/model", dir)
	if err != nil {
		t.Fatal(err)
	}
	again := hubtest.New()
	if other, err := again.AddRepo("org/model", dir); err != nil || other != commit {
		t.Fatalf("the same content gives the commits %s and %s (%v)", commit, other, err)
	}
	h := httptest.NewServer(srv)
	t.Cleanup(h.Close)
	return srv, h.URL, commit
}

// ask sends one request without following redirects.
func ask(t *testing.T, method, url string, header map[string]string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for k, v := range header {
		req.Header.Set(k, v)
	}
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(b)
}

func TestSmallFile(t *testing.T) {
	_, url, commit := start(t)
	resp, _ := ask(t, "HEAD", url+"/org/model/resolve/main/sub/a.txt", nil)
	const blob = `"ce013625030ba8dba906f756967f9e9ca394464a"` // git hash-object of "hello\n"
	if resp.StatusCode != http.StatusTemporaryRedirect || resp.Header.Get("X-Repo-Commit") != commit || resp.Header.Get("ETag") != blob {
		t.Fatalf("%d %v", resp.StatusCode, resp.Header)
	}
	next := resp.Header.Get("Location")
	if !strings.HasPrefix(next, "/api/resolve-cache/models/org/model/"+commit+"/sub/a.txt?") {
		t.Errorf("Location %s", next)
	}
	for _, c := range []struct {
		header map[string]string
		status int
		body   string
	}{
		{nil, 200, "hello\n"},
		{map[string]string{"Range": "bytes=2-"}, 206, "llo\n"},
		{map[string]string{"Range": "bytes=9-"}, 416, ""},
		{map[string]string{"If-None-Match": blob}, 304, ""},
	} {
		resp, body := ask(t, "GET", url+next, c.header)
		if resp.StatusCode != c.status || c.status < 300 && body != c.body || c.status < 400 && resp.Header.Get("X-Repo-Commit") != commit {
			t.Errorf("%v: %d %q", c.header, resp.StatusCode, body)
		}
	}
}

func TestLFSFile(t *testing.T) {
	srv, url, commit := start(t)
	resp, _ := ask(t, "HEAD", url+"/org/model/resolve/"+commit+"/m.safetensors", nil)
	sum := sha256.Sum256([]byte("weights"))
	h := resp.Header
	if resp.StatusCode != http.StatusFound || h.Get("X-Linked-Etag") != `"`+hex.EncodeToString(sum[:])+`"` || h.Get("X-Linked-Size") != "7" {
		t.Fatalf("%d %v", resp.StatusCode, h)
	}
	signed := h.Get("Location")
	resp, body := ask(t, "GET", signed, nil)
	if resp.StatusCode != http.StatusOK || body != "weights" || strings.Contains(resp.Header.Get("ETag"), hex.EncodeToString(sum[:])) {
		t.Errorf("%d %q %v", resp.StatusCode, body, resp.Header)
	}
	for name, u := range map[string]string{"no signature": strings.Split(signed, "?")[0], "other file": strings.Replace(signed, "m.safetensors", "config.json", 1), "later": strings.Replace(signed, "Expires=", "Expires=9", 1)} {
		if resp, _ := ask(t, "GET", u, nil); resp.StatusCode != http.StatusForbidden {
			t.Errorf("%s: %d, want 403", name, resp.StatusCode)
		}
	}
	srv.Inject(hubtest.Fault{Where: hubtest.AtResolve, What: hubtest.Expire, Times: 1})
	resp, _ = ask(t, "HEAD", url+"/org/model/resolve/main/m.safetensors", nil)
	if resp, _ := ask(t, "GET", resp.Header.Get("Location"), nil); resp.StatusCode != http.StatusForbidden {
		t.Errorf("expired signature: %d, want 403", resp.StatusCode)
	}
}

func TestErrors(t *testing.T) {
	srv, url, commit := start(t)
	status := func(path string, header map[string]string, want int, code string) {
		t.Helper()
		resp, body := ask(t, "GET", url+path, header)
		if resp.StatusCode != want || resp.Header.Get("X-Error-Code") != code || !json.Valid([]byte(body)) {
			t.Errorf("%s: %d %q %q, want %d %q", path, resp.StatusCode, resp.Header.Get("X-Error-Code"), body, want, code)
		}
	}
	status("/api/models/org/none", nil, 401, "RepoNotFound")
	status("/api/models/org/model/revision/none", nil, 404, "RevisionNotFound")
	status("/api/models/org/model/tree/refs%2Fpr%2F1", nil, 404, "RevisionNotFound")
	status("/api/models/org/model/tree/main/none", nil, 404, "EntryNotFound")
	status("/org/model/resolve/main/none", nil, 404, "EntryNotFound")
	if resp, _ := ask(t, "GET", url+"/org/model/resolve/main/none", nil); resp.Header.Get("X-Repo-Commit") != commit {
		t.Error("EntryNotFound without X-Repo-Commit")
	}
	srv.Gate("org/model", true)
	status("/org/model/resolve/main/none", nil, 401, "GatedRepo")
	status("/org/model/resolve/main/config.json", map[string]string{"Authorization": "Bearer x"}, 403, "GatedRepo")
	srv.Token = "hf_x"
	status("/api/models/org/model", nil, 401, "")
	status("/api/models/org/none", map[string]string{"Authorization": "Bearer hf_x"}, 404, "RepoNotFound")
}

func TestTree(t *testing.T) {
	srv, url, commit := start(t)
	srv.PageSize = 3
	resp, body := ask(t, "GET", url+"/api/models/org/model/tree/"+commit+"?recursive=True&expand=False", nil)
	var items []map[string]any
	if err := json.Unmarshal([]byte(body), &items); err != nil || len(items) != 3 || !strings.Contains(resp.Header.Get("Link"), `rel="next"`) {
		t.Fatalf("%v %s %v", err, body, resp.Header)
	}
	if items[1]["path"] != "m.safetensors" || items[1]["lfs"] == nil || items[2]["type"] != "directory" {
		t.Errorf("%v", items)
	}
	_, body = ask(t, "GET", url+"/api/models/org/model/tree/main/sub", nil)
	if !strings.Contains(body, `"sub/a.txt"`) || strings.Contains(body, "config.json") {
		t.Errorf("subdirectory: %s", body)
	}
	srv.MaskHashes(true)
	if _, body = ask(t, "GET", url+"/api/models/org/model/tree/main", nil); !strings.Contains(body, strings.Repeat("*", 64)) {
		t.Errorf("not masked: %s", body)
	}
}

func TestAddRefuses(t *testing.T) {
	srv, _, _ := start(t)
	if _, err := srv.AddRepo("org/model", t.TempDir()); err == nil {
		t.Error("adds a repository twice")
	}
	if _, err := srv.AddCommit("org/none", t.TempDir()); err == nil {
		t.Error("adds a commit to nothing")
	}
	dir := t.TempDir()
	if err := os.Symlink("/etc/passwd", filepath.Join(dir, "x")); err != nil {
		t.Fatal(err)
	}
	if _, err := srv.AddRepo("org/link", dir); err == nil {
		t.Error("serves a link")
	}
}

func TestFaultsSpoilBodies(t *testing.T) {
	srv, url, commit := start(t)
	file := url + "/api/resolve-cache/models/org/model/" + commit + "/config.json"
	srv.Inject(hubtest.Fault{Where: hubtest.InBody, What: hubtest.Flip, At: 1, Path: "config.json", Times: 1})
	if _, body := ask(t, "GET", file, nil); !bytes.Equal([]byte(body), []byte("{|")) {
		t.Errorf("flipped: %q", body)
	}
	if _, body := ask(t, "GET", file, nil); body != "{}" {
		t.Errorf("the fault is not used up: %q", body)
	}
}
