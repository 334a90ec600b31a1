// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"bytes"
	"os"
	"sync"
	"testing"
)

// TestReplacedMeanwhile: a channel that is replaced between two looks of one reader is read as one of the two.
func TestReplacedMeanwhile(t *testing.T) {
	root, err := os.OpenRoot(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	const key = channelsPrefix + "llama/latest.json"
	contents := [][]byte{bytes.Repeat([]byte("a"), 97), bytes.Repeat([]byte("b"), 174)}
	replace := func(i int) {
		if err := root.WriteFile("next", contents[i%2], 0o600); err != nil {
			t.Error(err)
		}
		if err := root.Rename("next", key); err != nil {
			t.Error(err)
		}
	}
	if err := root.MkdirAll(channelsPrefix+"llama", 0o700); err != nil {
		t.Fatal(err)
	}
	replace(0)
	e := &engine{st: &dirStore{root: root}}
	stop := make(chan struct{})
	var writer sync.WaitGroup
	writer.Go(func() {
		for i := 1; ; i++ {
			select {
			case <-stop:
				return
			default:
				replace(i)
			}
		}
	})
	for range 3000 {
		data, _, err := e.readSmall(t.Context(), key, maxSmallJSON)
		if err != nil || !bytes.Equal(data, contents[0]) && !bytes.Equal(data, contents[1]) {
			t.Errorf("%d bytes (%v)", len(data), err)
			break
		}
	}
	close(stop)
	writer.Wait()
}
