// SPDX-License-Identifier: Apache-2.0

package console

import (
	"io"
	"os"

	"golang.org/x/term"
)

// Style is what the place that is written to can show. The zero Style is plain text.
type Style struct {
	Terminal bool // a person watches: redraw in place
	Color    bool // use colours
}

// Detect looks whether w is a terminal, and honours NO_COLOR (https://no-color.org) and TERM=dumb. getenv is os.Getenv, passed in
// by main.
func Detect(w io.Writer, getenv func(string) string) Style {
	f, ok := w.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) || getenv("TERM") == "dumb" {
		return Style{}
	}
	return Style{Terminal: true, Color: getenv("NO_COLOR") == ""}
}

// The colours are those of every terminal's basic palette, so that they follow the person's theme.
const (
	colorLow   = "\x1b[36m" // cyan
	colorHigh  = "\x1b[32m" // green
	colorFail  = "\x1b[31m" // red
	colorReset = "\x1b[0m"
)

func (s Style) paint(color, text string) string {
	if !s.Color || color == "" {
		return text
	}
	return color + text + colorReset
}

func sideColor(side string) string {
	switch side {
	case Low:
		return colorLow
	case High:
		return colorHigh
	}
	return ""
}
