// SPDX-License-Identifier: Apache-2.0

// Package qr draws a text as a QR code: as a picture, and in a terminal with half blocks, two modules in a character.
//
//	Encode(text) --> Code --PNG--> a picture for paper or a screen
//	                      `-Text-> lines for a terminal
//
// The text is of QR's alphanumeric mode (digits, large letters, blank and $%*+-./:), which holds a half more than its byte mode. The
// encoding is github.com/boombuler/barcode's; what is ours is the drawing.
package qr

import (
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"io"
	"strings"

	"github.com/boombuler/barcode/qr"
)

const (
	// MaxText is what version 40 holds at level M, which reads with 15 % of the code damaged (ISO/IEC 18004 table 7).
	MaxText = 3391

	// quiet is the white border that a reader needs, in modules (ISO/IEC 18004 section 5.3.8).
	quiet = 4
	// pixels of a module in a picture: the largest code is then 1110 pixels wide, and prints sharp on half a page.
	pixels = 6
)

// ErrText says that a text does not fit a code.
var ErrText = errors.New("qr: the text does not fit")

// Code is a QR code.
type Code struct{ image image.Image }

// Encode makes the code of a text in alphanumeric mode at level M. The error is [ErrText].
func Encode(text string) (*Code, error) {
	if len(text) == 0 || len(text) > MaxText {
		return nil, fmt.Errorf("%w: %d characters, not in 1..%d", ErrText, len(text), MaxText)
	}
	code, err := qr.Encode(text, qr.M, qr.AlphaNumeric)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrText, err)
	}
	return &Code{image: code}, nil
}

// Width returns how many modules the code has in each direction, with its border: the columns that Text takes.
func (c *Code) Width() int { return c.image.Bounds().Dx() + 2*quiet }

// dark tells the colour of a module, counted from the corner of the border.
func (c *Code) dark(x, y int) bool {
	p := image.Pt(x-quiet, y-quiet)
	if !p.In(c.image.Bounds()) {
		return false
	}
	return color.GrayModel.Convert(c.image.At(p.X, p.Y)).(color.Gray).Y < 128
}

// PNG writes the code as a picture in black and white.
func (c *Code) PNG(w io.Writer) error {
	side := c.Width() * pixels
	picture := image.NewPaletted(image.Rect(0, 0, side, side), color.Palette{color.White, color.Black})
	for y := range side {
		for x := range side {
			if c.dark(x/pixels, y/pixels) {
				picture.SetColorIndex(x, y, 1)
			}
		}
	}
	if err := png.Encode(w, picture); err != nil {
		return fmt.Errorf("write QR code: %w", err)
	}
	return nil
}

// Black on white whatever the theme: entries of the fixed part of the 256-colour palette.
const (
	ink   = "\x1b[38;5;16m\x1b[48;5;231m"
	reset = "\x1b[0m"
)

// Text draws the code with half blocks, (Width+1)/2 lines. With colour it is black on white; without, blocks are light and blanks dark,
// which is right on a dark background, and most readers take it on a light one too.
func (c *Code) Text(colour bool) string {
	var b strings.Builder
	for y := 0; y < c.Width(); y += 2 {
		if colour {
			b.WriteString(ink)
		}
		for x := range c.Width() {
			b.WriteRune(block(c.dark(x, y) == colour, c.dark(x, y+1) == colour))
		}
		if colour {
			b.WriteString(reset)
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// block is the character whose upper and lower halves are drawn or not.
func block(upper, lower bool) rune {
	switch {
	case upper && lower:
		return '█'
	case upper:
		return '▀'
	case lower:
		return '▄'
	}
	return ' '
}
