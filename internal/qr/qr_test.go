// SPDX-License-Identifier: Apache-2.0

package qr_test

import (
	"bytes"
	"errors"
	"image"
	"image/color"
	"image/png"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/makiuchi-d/gozxing"
	"github.com/makiuchi-d/gozxing/qrcode"

	"sluice/internal/qr"
)

// read decodes a picture with another library than the one that made it.
func read(t *testing.T, picture image.Image) string {
	t.Helper()
	bitmap, err := gozxing.NewBinaryBitmapFromImage(picture)
	if err != nil {
		t.Fatal(err)
	}
	result, err := qrcode.NewQRCodeReader().Decode(bitmap, map[gozxing.DecodeHintType]any{gozxing.DecodeHintType_PURE_BARCODE: true})
	if err != nil {
		t.Fatal(err)
	}
	return result.GetText()
}

// pictureOf turns lines of half blocks back into a picture, four pixels a module.
func pictureOf(text string, colour bool) image.Image {
	lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	width := utf8.RuneCountInString(strip(lines[0]))
	picture := image.NewGray(image.Rect(0, 0, 4*width, 8*len(lines)))
	for y, line := range lines {
		for x, r := range []rune(strip(line)) {
			upper, lower := r == '█' || r == '▀', r == '█' || r == '▄'
			fill(picture, 4*x, 8*y, upper == colour)
			fill(picture, 4*x, 8*y+4, lower == colour)
		}
	}
	return picture
}

// fill paints a module.
func fill(picture *image.Gray, x, y int, dark bool) {
	for i := range 16 {
		if !dark {
			picture.SetGray(x+i%4, y+i/4, color.Gray{Y: 255})
		}
	}
}

func strip(line string) string {
	for _, escape := range []string{"\x1b[38;5;16m", "\x1b[48;5;231m", "\x1b[0m"} {
		line = strings.ReplaceAll(line, escape, "")
	}
	return line
}

// TestReadBack: what is drawn, as a picture and in a terminal, is read by another library as the same text.
func TestReadBack(t *testing.T) {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
	for _, n := range []int{1, 35, 315, 1000, qr.MaxText} {
		text := strings.Repeat(alphabet, n/32+1)[:n]
		code, err := qr.Encode(text)
		if err != nil {
			t.Fatal(err)
		}
		var file bytes.Buffer
		if err := code.PNG(&file); err != nil {
			t.Fatal(err)
		}
		picture, err := png.Decode(&file)
		if err != nil {
			t.Fatal(err)
		}
		if got := read(t, picture); got != text {
			t.Errorf("%d characters: the picture is read as %q", n, got)
		}
		for _, colour := range []bool{true, false} {
			drawn := code.Text(colour)
			if got := read(t, pictureOf(drawn, colour)); got != text {
				t.Errorf("%d characters, colour %v: the drawing is read as %q", n, colour, got)
			}
			if first, _, _ := strings.Cut(drawn, "\n"); utf8.RuneCountInString(strip(first)) != code.Width() {
				t.Errorf("%d characters: %d columns, Width says %d", n, utf8.RuneCountInString(strip(first)), code.Width())
			}
		}
	}
}

func TestDoesNotFit(t *testing.T) {
	for _, text := range []string{"", "small letters", strings.Repeat("A", qr.MaxText+1)} {
		if _, err := qr.Encode(text); !errors.Is(err, qr.ErrText) {
			t.Errorf("%d characters: %v", len(text), err)
		}
	}
}
