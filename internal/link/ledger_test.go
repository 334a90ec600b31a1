// SPDX-License-Identifier: Apache-2.0

package link_test

import (
	"reflect"
	"testing"
	"time"

	"sluice/internal/link"
)

// times calls visit with every time that a value holds.
func times(v reflect.Value, path string, visit func(path string, t reflect.Value)) {
	switch {
	case v.Type() == reflect.TypeFor[time.Time]():
		visit(path, v)
	case v.Kind() == reflect.Struct:
		for i := range v.NumField() {
			times(v.Field(i), path+"."+v.Type().Field(i).Name, visit)
		}
	case v.Kind() == reflect.Slice:
		for i := range v.Len() {
			times(v.Index(i), path, visit)
		}
	}
}

// TestRebase: no time that we took is left behind, and none that the sender took is moved.
func TestRebase(t *testing.T) {
	then, now := time.Unix(1000, 0), time.Unix(5000, 0)
	before := link.Status{Sessions: make([]link.SessionStatus, 2), Releases: make([]link.AnnouncedRelease, 2), Lanes: make([]link.LaneStatus, 2)}
	seen := 0
	times(reflect.ValueOf(&before).Elem(), "Status", func(_ string, v reflect.Value) {
		v.Set(reflect.ValueOf(then))
		seen++
	})
	if seen < 15 {
		t.Fatalf("only %d times were found", seen)
	}
	after := before.Rebase(func(time.Time) time.Time { return now })
	times(reflect.ValueOf(after), "Status", func(path string, v reflect.Value) {
		want := now
		if path == "Status.Sessions.Announcement.Start" {
			want = then
		}
		if got := v.Interface().(time.Time); !got.Equal(want) {
			t.Errorf("%s is %v", path, got)
		}
	})
	times(reflect.ValueOf(before), "Status", func(path string, v reflect.Value) {
		if !v.Interface().(time.Time).Equal(then) {
			t.Errorf("%s of the original was moved", path)
		}
	})
	if zero := (link.Status{}).Rebase(func(time.Time) time.Time { return now }); !zero.LastHeard.IsZero() {
		t.Error("a time that was not set is set")
	}
}
