// SPDX-License-Identifier: Apache-2.0

package hub

import (
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestFnmatch: the expected values are those of Python 3's fnmatch.fnmatchcase.
func TestFnmatch(t *testing.T) {
	for _, c := range []struct {
		pattern, name string
		want          bool
	}{
		{"*.json", "config.json", true},
		{"*.json", "a/b.json", true},
		{"*.json", "a.JSON", false},
		{"*", "", true},
		{"", "", true},
		{"", "a", false},
		{"a*b*c", "a/b/c", true},
		{"a*b*c", "acb", false},
		{"**", "x/y", true},
		{"?", "ä", true},
		{"?", "", false},
		{"?", "ab", false},
		{"[ab]x", "bx", true},
		{"[!ab]x", "bx", false},
		{"[!ab]x", "cx", true},
		{"[a-c]", "b", true},
		{"[c-a]", "b", false},
		{"[!c-a]", "b", true},
		{"[", "[", true},
		{"[a", "[a", true},
		{"[]]", "]", true},
		{"[!]]", "]", false},
		{"[!]]", "x", true},
		{"[]", "[]", true},
		{"[a-]", "-", true},
		{"[-a]", "-", true},
		{"[a-b-c]", "-", true},
		{"[a-b-c]", "c", true},
		{"[a--b]", "b", true},
		{"[!]", "[!]", true},
		{"[!!]", "!", false},
		{"[!!]", "a", true},
		{`\*`, "*", false},
		{`\*`, `\x`, true},
		{"a.b", "aXb", false},
		{"*\n*", "a\nb", true},
		{"model-*-of-*.safetensors", "model-00001-of-00004.safetensors", true},
		{strings.Repeat("*a", 40), strings.Repeat("a", 39), false},
	} {
		if got := fnmatch(c.pattern, c.name); got != c.want {
			t.Errorf("fnmatch(%q, %q) = %v, want %v", c.pattern, c.name, got, c.want)
		}
	}
}

func FuzzFnmatch(f *testing.F) {
	f.Add("[!a-", "x")
	f.Add("*[]]*?", "a]b")
	f.Fuzz(func(t *testing.T, pattern, name string) {
		fnmatch(pattern, name)
		if !fnmatch("*", name) || !fnmatch("*"+strings.Repeat("?", len([]rune(name))), name) {
			t.Errorf("star does not match %q", name)
		}
	})
}

func TestRequestedWait(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for _, c := range []struct {
		rateLimit, retryAfter string
		want                  time.Duration
		ok                    bool
	}{
		{`"api";r=0;t=55`, "", 56 * time.Second, true},
		{`"resolvers";r=0;t=0`, "9", time.Second, true},
		{`"api";r=12;t=55`, "", 0, false},
		{`"api";r=12;t=55`, "7", 7 * time.Second, true},
		{`"api"; r=0 ; t=3`, "", 4 * time.Second, true},
		{`"api";r=0;t=-5`, "", 0, false},
		{`"api";r=0;t=99999999999999999999`, "", 0, false},
		{"", "120", 2 * time.Minute, true},
		{"", "Fri, 02 Jan 2026 03:04:15 GMT", 10 * time.Second, true},
		{"", "Fri, 02 Jan 2026 03:03:15 GMT", 0, true},
		{"", "soon", 0, false},
		{"", "", 0, false},
	} {
		h := http.Header{}
		h.Set("RateLimit", c.rateLimit)
		h.Set("Retry-After", c.retryAfter)
		if got, ok := requestedWait(h, now); got != c.want || ok != c.ok {
			t.Errorf("RateLimit %q, Retry-After %q: %v %v, want %v %v", c.rateLimit, c.retryAfter, got, ok, c.want, c.ok)
		}
	}
}

func TestBackoffIsCapped(t *testing.T) {
	wait := backoff(2 * time.Minute)
	day := &http.Response{StatusCode: http.StatusTooManyRequests, Header: http.Header{"Retry-After": {"86400"}}}
	if got := wait(0, 0, 0, day); got != 2*time.Minute {
		t.Errorf("a day's Retry-After waits %v", got)
	}
	for attempt := range 100 {
		if got := wait(0, 0, attempt, nil); got < backoffMin/2 || got > backoffMax {
			t.Errorf("attempt %d waits %v", attempt, got)
		}
	}
}

func TestNextPage(t *testing.T) {
	for _, c := range []struct {
		links []string
		want  string
		bad   bool
	}{
		{nil, "", false},
		{[]string{`<https://h/api?recursive=true&cursor=abc>; rel="next"`}, "recursive=true&cursor=abc", false},
		{[]string{`</p?x=1>; rel=prev, </p?x=3>; rel=next`}, "x=3", false},
		{[]string{`</p?x=1>; title="a, b"; rel="last"`, `</p?x=2>;rel="prefetch next"`}, "x=2", false},
		{[]string{`</p?x=1>; rel="prev"`}, "", false},
		{[]string{`</p>; rel="next"`}, "", true},
		{[]string{`nonsense; rel="next"`}, "", true},
		{[]string{`</p?x=1; rel="next"`}, "", true},
		{[]string{`</p?x=1>; rel="next`}, "", true},
		{[]string{"<%zz?x>; rel=next"}, "", true},
	} {
		got, err := nextPage(c.links)
		if got != c.want || (err != nil) != c.bad || c.bad && !errors.Is(err, ErrProtocol) {
			t.Errorf("%q: %q %v, want %q bad=%v", c.links, got, err, c.want, c.bad)
		}
	}
}

func FuzzNextPage(f *testing.F) {
	f.Add(`<https://h/a?cursor=x>; rel="next", </b?c>; rel="a b"; t=","`)
	f.Add(`<>;rel=next`)
	f.Add(`,,<`)
	f.Fuzz(func(t *testing.T, link string) {
		if q, err := nextPage([]string{link}); err == nil && strings.ContainsAny(q, ">") && !strings.Contains(link, q) {
			t.Errorf("%q gives %q", link, q)
		}
	})
}

func FuzzParseTree(f *testing.F) {
	f.Add([]byte(`[{"type":"file","oid":"` + strings.Repeat("0", 40) + `","size":1,"path":"a"},{"type":"directory","oid":"x","size":0,"path":"d"}]`))
	f.Add([]byte(`[{"type":"file","oid":"` + strings.Repeat("0", 40) + `","size":9,"path":"a","lfs":{"oid":"` + strings.Repeat("f", 64) + `","size":9}}]`))
	f.Add([]byte(`[{"type":"file","oid":"` + strings.Repeat("*", 64) + `","path":"../a"}]`))
	f.Fuzz(func(t *testing.T, body []byte) {
		files, listed, err := parseTree(body)
		if err != nil {
			return
		}
		if len(files) > listed {
			t.Errorf("%d files in %d items", len(files), listed)
		}
		for _, e := range files {
			if checkPath(e.Path) != nil || !isHex(e.GitSHA1, 40) || e.SHA256 != "" && !isHex(e.SHA256, 64) || e.Size < 0 {
				t.Errorf("accepted %+v", e)
			}
		}
	})
}

func TestCheckPath(t *testing.T) {
	long := strings.Repeat("x", 255)
	for p, ok := range map[string]bool{
		"a": true, "a/b.json": true, ".gitattributes": true, "ä/ö": true, long: true, "a b": true, "console.txt": true,
		"": false, "/a": false, "a/": false, "a//b": false, ".": false, "a/../b": false, "a\\b": false, "a:b": false, "a\x00": false, "a\u0085": false, "a\xff": false,
		long + "x": false, "a.": false, "a ": false, "CON": false, "a/nul.txt": false, "com1": false, ".git": false, ".GIT/config": false, ".gitmodules": false, "a\u0308": false,
		strings.Repeat("a/", 32) + "a": false, strings.Repeat(long+"/", 4) + "abcd": false,
	} {
		if err := checkPath(p); (err == nil) != ok || err != nil && !errors.Is(err, ErrPath) {
			t.Errorf("checkPath(%q) = %v", p, err)
		}
	}
}

func TestParseContentRange(t *testing.T) {
	for s, want := range map[string][]int64{
		"bytes 5-9/10": {5, 10}, "bytes 0-0/1": {0, 1},
		"": nil, "bytes */10": nil, "bytes 5-9/*": nil, "bytes 9-5/10": nil, "bytes 5-10/10": nil, "bytes -5-9/10": nil, "items 5-9/10": nil, "bytes 5-9": nil,
	} {
		start, total, ok := parseContentRange(s)
		if ok != (want != nil) || ok && !slices.Equal([]int64{start, total}, want) {
			t.Errorf("%q: %d %d %v", s, start, total, ok)
		}
	}
}

func TestPrintable(t *testing.T) {
	if got := printable("a\x1b[31mb\r\n" + strings.Repeat("ä", 1000)); len(got) > maxErrorText || strings.ContainsAny(got, "\x1b\r\n") {
		t.Errorf("%q", got)
	}
}
