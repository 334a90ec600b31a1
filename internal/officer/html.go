// SPDX-License-Identifier: Apache-2.0

package officer

import (
	"bytes"
	_ "embed"
	"html/template"
	"strings"
)

//go:embed page.html
var pageTemplate string

// htmlLine is one line of the page's text: Key and Rest together are the line, to the byte, without its newline.
type htmlLine struct {
	Class, Key, Rest string
}

// HTML is the page as one self-contained file: no script, nothing fetched. It is made of the text and nothing else, and the text stands in
// it in full: what a browser gives for the text of the element "shown" is what was hashed.
func (p Page) HTML() ([]byte, error) {
	t, err := template.New("page").Parse(pageTemplate)
	if err != nil {
		return nil, err
	}
	data := struct {
		Title, Hash, Words string
		Risks              int
		Lines              []htmlLine
	}{Hash: p.Hash().String()}
	class := ""
	for line := range strings.Lines(p.text) {
		l := split(strings.TrimSuffix(line, "\n"))
		key := strings.TrimSpace(l.Key)
		if key != "" {
			class = classOf(key)
		}
		switch key {
		case riskKey:
			data.Risks++
		case "RELEASE":
			data.Title = strings.TrimSpace(l.Rest)
		case "WORDS":
			data.Words = strings.TrimSpace(l.Rest)
		}
		l.Class = class
		if key == "" {
			l.Class = class + " more" + diffClass(l.Rest)
		}
		data.Lines = append(data.Lines, l)
	}
	if parts := strings.SplitN(data.Title, "   ", 3); len(parts) == 3 {
		data.Title = parts[0] + ", " + parts[1]
	}
	var b bytes.Buffer
	if err := t.Execute(&b, data); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// split cuts a line after its key and the blanks that follow it: twelve characters.
func split(line string) htmlLine {
	const width = 12
	if len(line) < width {
		return htmlLine{Rest: line}
	}
	return htmlLine{Key: line[:width], Rest: line[width:]}
}

func classOf(key string) string {
	if key == riskKey {
		return "risk"
	}
	return strings.ToLower(strings.ReplaceAll(key, " ", "-"))
}

// diffClass colours the lines of a difference of texts.
func diffClass(rest string) string {
	body, ok := strings.CutPrefix(rest, "  | ")
	switch {
	case !ok:
		return ""
	case strings.HasPrefix(body, "+"):
		return " add"
	case strings.HasPrefix(body, "-"):
		return " del"
	}
	return " same"
}
