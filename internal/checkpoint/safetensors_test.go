// SPDX-License-Identifier: Apache-2.0

package checkpoint_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"sluice/internal/checkpoint"
)

// container is a file with the given header and n bytes of data.
func container(header string, n int) []byte {
	b := binary.LittleEndian.AppendUint64(nil, uint64(len(header)))
	return append(append(b, header...), make([]byte, n)...)
}

func parse(b []byte) (*checkpoint.Safetensors, error) {
	return checkpoint.ParseSafetensors(bytes.NewReader(b), int64(len(b)))
}

func TestParseSafetensors(t *testing.T) {
	s, err := parse(container(`{"__metadata__":{"format":"pt","ä":"ö"},"b":{"dtype":"F16","shape":[2,3],"data_offsets":[4,16]},"a":{"shape":[],"data_offsets":[0,4],"dtype":"I32"},"e":{"dtype":"F64","shape":[0,7],"data_offsets":[16,16]}}   `, 16))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, tensor := range s.Tensors {
		names = append(names, tensor.Name)
	}
	if !slices.Equal(names, []string{"a", "b", "e"}) || s.Metadata["format"] != "pt" {
		t.Errorf("%v %v", names, s.Metadata)
	}
	if b, ok := s.Tensor("b"); !ok || b.Elements() != 6 || b.Begin != 4 || b.End != 16 || b.DType != "F16" {
		t.Errorf("%+v", b)
	}
	if _, ok := s.Tensor("none"); ok {
		t.Error("found a tensor that is not there")
	}
}

func TestSafetensorsAccepts(t *testing.T) {
	for name, b := range map[string][]byte{
		"no tensor":         container(`{}`, 0),
		"only metadata":     container(`{"__metadata__":{}}`, 0),
		"sub-byte dtype":    container(`{"a":{"dtype":"F4","shape":[2],"data_offsets":[0,1]}}`, 1),
		"six bits":          container(`{"a":{"dtype":"F6_E2M3","shape":[4],"data_offsets":[0,3]}}`, 3),
		"spaces inside":     container(`{ "a" : { "dtype" : "U8" , "shape" : [ 1 ] , "data_offsets" : [ 0 , 1 ] } }`, 1),
		"several empty":     container(`{"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},"b":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},"c":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}`, 1),
		"escaped name":      container(`{"\u0061":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}`, 1),
		"unordered in JSON": container(`{"z":{"dtype":"U8","shape":[1],"data_offsets":[1,2]},"y":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}`, 2),
	} {
		if _, err := parse(b); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestSafetensorsAbuse: the table of research (safetensors' own tests, parser differentials, polyglots).
func TestSafetensorsAbuse(t *testing.T) {
	one := `"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}`
	big := fmt.Sprintf(`{%s}%s`, one, strings.Repeat(" ", 25_000_000))
	for name, b := range map[string][]byte{
		"empty file":                 {},
		"seven bytes":                make([]byte, 7),
		"only a length":              make([]byte, 8),
		"header longer than file":    container(`{}`, 0)[:9],
		"header length near 2^64":    append(bytes.Repeat([]byte{0xff}, 8), "{}"...),
		"header above the cap":       container(big, 1),
		"no brace first":             container(` {}`, 0),
		"a list":                     container(`[]`, 0),
		"not UTF-8":                  container("{\"\xff\":{}}", 0),
		"cut JSON":                   container(`{"a":{"dtype":"U8"`, 0),
		"two objects":                container(`{}{}`, 0),
		"newline behind":             container("{}\n", 0),
		"NUL behind":                 container("{}\x00", 0),
		"duplicate tensor":           container(`{`+one+`,`+one+`}`, 1),
		"duplicate by escape":        container(`{`+one+`,"\u0061":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}`, 1),
		"duplicate dtype":            container(`{"a":{"dtype":"U8","dtype":"U8","shape":[1],"data_offsets":[0,1]}}`, 1),
		"duplicate metadata":         container(`{"__metadata__":{},"__metadata__":{}}`, 0),
		"duplicate metadata key":     container(`{"__metadata__":{"a":"1","a":"2"}}`, 0),
		"metadata not a string":      container(`{"__metadata__":{"a":1}}`, 0),
		"metadata nested":            container(`{"__metadata__":{"a":{}}}`, 0),
		"metadata is a string":       container(`{"__metadata__":"x"}`, 0),
		"tensor is a list":           container(`{"a":[]}`, 0),
		"tensor is null":             container(`{"a":null}`, 0),
		"unknown key":                container(`{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1],"x":1}}`, 1),
		"key in another case":        container(`{"a":{"Dtype":"U8","shape":[1],"data_offsets":[0,1]}}`, 1),
		"no dtype":                   container(`{"a":{"shape":[1],"data_offsets":[0,1]}}`, 1),
		"no shape":                   container(`{"a":{"dtype":"U8","data_offsets":[0,1]}}`, 1),
		"no offsets":                 container(`{"a":{"dtype":"U8","shape":[1]}}`, 1),
		"one offset":                 container(`{"a":{"dtype":"U8","shape":[1],"data_offsets":[0]}}`, 1),
		"three offsets":              container(`{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1,2]}}`, 1),
		"unknown dtype":              container(`{"a":{"dtype":"U7","shape":[1],"data_offsets":[0,1]}}`, 1),
		"dtype in lower case":        container(`{"a":{"dtype":"u8","shape":[1],"data_offsets":[0,1]}}`, 1),
		"negative shape":             container(`{"a":{"dtype":"U8","shape":[-1],"data_offsets":[0,1]}}`, 1),
		"fraction in shape":          container(`{"a":{"dtype":"U8","shape":[1.0],"data_offsets":[0,1]}}`, 1),
		"exponent in shape":          container(`{"a":{"dtype":"U8","shape":[1e0],"data_offsets":[0,1]}}`, 1),
		"string in shape":            container(`{"a":{"dtype":"U8","shape":["1"],"data_offsets":[0,1]}}`, 1),
		"shape of 2^64":              container(`{"a":{"dtype":"U8","shape":[18446744073709551616],"data_offsets":[0,1]}}`, 1),
		"product overflows to one":   container(`{"a":{"dtype":"U8","shape":[4294967296,4294967296],"data_offsets":[0,0]}}`, 0),
		"bits overflow":              container(`{"a":{"dtype":"F64","shape":[2305843009213693952],"data_offsets":[0,0]}}`, 0),
		"zero beside an overflow":    container(`{"a":{"dtype":"U8","shape":[0,9223372036854775807,9],"data_offsets":[0,0]}}`, 0),
		"too many dimensions":        container(`{"a":{"dtype":"U8","shape":[`+strings.Repeat("1,", 16)+`1],"data_offsets":[0,1]}}`, 1),
		"half a byte":                container(`{"a":{"dtype":"F4","shape":[3],"data_offsets":[0,1]}}`, 1),
		"offsets backwards":          container(`{"a":{"dtype":"U8","shape":[1],"data_offsets":[1,0]}}`, 1),
		"offsets too long":           container(`{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,2]}}`, 2),
		"hole at the beginning":      container(`{"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}`, 2),
		"hole in the middle":         container(`{`+one+`,"b":{"dtype":"U8","shape":[1],"data_offsets":[2,3]}}`, 3),
		"overlap":                    container(`{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"U8","shape":[2],"data_offsets":[1,3]}}`, 3),
		"the same bytes twice":       container(`{`+one+`,"b":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}`, 1),
		"bytes behind the data":      container(`{`+one+`}`, 2),
		"data cut":                   container(`{`+one+`}`, 0),
		"empty name":                 container(`{"":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}`, 1),
		"control character in name":  container(`{"a\u001b[31m":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}`, 1),
		"deep nesting":               container(`{"a":`+strings.Repeat("[", 100_000)+`}`, 0),
		"comma behind the last":      container(`{`+one+`,}`, 1),
		"big-endian length":          {0, 0, 0, 0, 0, 0, 0, 2, '{', '}'},
		"pickle":                     []byte("\x80\x04\x95\x00\x00\x00\x00\x00\x00\x00."),
		"zip":                        []byte("PK\x03\x04............................"),
		"a zip behind the tensors":   append(container(`{`+one+`}`, 1), "PK\x05\x06\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"...),
		"an empty tensor in the gap": container(`{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"U8","shape":[0],"data_offsets":[1,1]}}`, 2),
	} {
		if s, err := parse(b); !errors.Is(err, checkpoint.ErrSafetensors) {
			t.Errorf("%s: accepted as %v (%v)", name, s, err)
		}
	}
}

type failing struct{}

func (failing) ReadAt([]byte, int64) (int, error) { return 0, io.ErrClosedPipe }

func TestSafetensorsCannotRead(t *testing.T) {
	if _, err := checkpoint.ParseSafetensors(failing{}, 100); !errors.Is(err, io.ErrClosedPipe) || errors.Is(err, checkpoint.ErrSafetensors) {
		t.Errorf("a broken disk is called a bad file: %v", err)
	}
	short := container(`{}`, 0)
	if _, err := checkpoint.ParseSafetensors(bytes.NewReader(short[:9]), int64(len(short))); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("file cut while it is read: %v", err)
	}
}

func FuzzParseSafetensors(f *testing.F) {
	f.Add(container(`{"__metadata__":{"format":"pt"},"a":{"dtype":"F16","shape":[2],"data_offsets":[0,4]},"b":{"dtype":"F4","shape":[2],"data_offsets":[4,5]}}`, 5))
	f.Add(container(`{"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}} `, 0))
	f.Add(container(`{"\u0061":{"dtype":"U8"}}`, 1))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := parse(b)
		if err != nil {
			return
		}
		end, names := int64(0), map[string]bool{}
		for _, tensor := range s.Tensors {
			if tensor.Begin != end || tensor.End < tensor.Begin || names[tensor.Name] {
				t.Fatalf("accepted %+v behind %d", tensor, end)
			}
			end, names[tensor.Name] = tensor.End, true
		}
		if s.Data+end != int64(len(b)) {
			t.Fatalf("%d bytes of %d are accounted for", s.Data+end, len(b))
		}
	})
}
