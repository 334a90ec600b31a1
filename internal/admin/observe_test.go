// SPDX-License-Identifier: Apache-2.0

package admin_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"

	"sluice/internal/admin"
)

// TestNothingIsSampled: zap's production configuration keeps about 109 of 1,000 equal records.
func TestNothingIsSampled(t *testing.T) {
	var out bytes.Buffer
	log, err := admin.NewLogger("info", &out, true)
	if err != nil {
		t.Fatal(err)
	}
	for range 1000 {
		log.Info("signature verified")
	}
	if n := bytes.Count(out.Bytes(), []byte("\n")); n != 1000 {
		t.Errorf("%d of 1000 records were written", n)
	}
}

func TestJSONRecord(t *testing.T) {
	var out bytes.Buffer
	log, err := admin.NewLogger("warn", &out, true)
	if err != nil {
		t.Fatal(err)
	}
	log.Info("not shown")
	log.Named("receiver").Warn("line one\nline two", zap.Duration("took", 1500*time.Millisecond), zap.Error(errors.New("boom")), zap.Int("block", 7))
	var record map[string]any
	if err := json.Unmarshal(out.Bytes(), &record); err != nil {
		t.Fatalf("%v in %q", err, out.String())
	}
	at, err := time.Parse(time.RFC3339Nano, record["time"].(string))
	if err != nil || !strings.HasSuffix(record["time"].(string), "Z") || time.Since(at) > time.Hour {
		t.Errorf("time: %v, %v", record["time"], err)
	}
	delete(record, "time")
	got, _ := json.Marshal(record)
	const want = `{"block":7,"error":"boom","level":"warn","logger":"receiver","msg":"line one\nline two","took":"1.5s"}`
	if string(got) != want {
		t.Errorf("record is %s, want %s", got, want)
	}
}

func TestConsoleRecord(t *testing.T) {
	var out bytes.Buffer
	log, err := admin.NewLogger("debug", &out, false)
	if err != nil {
		t.Fatal(err)
	}
	log.Debug("assembled", zap.String("name", "a\nb"))
	if got := out.String(); strings.Count(got, "\n") != 1 || !strings.HasSuffix(got, "\tdebug\tassembled\t{\"name\": \"a\\nb\"}\n") {
		t.Errorf("record is %q", got)
	}
}

func TestLevels(t *testing.T) {
	for level, ok := range map[string]bool{
		"debug": true, "info": true, "warn": true, "error": true, "": false, "INFO": false, "fatal": false, "panic": false, "7": false,
	} {
		if log, err := admin.NewLogger(level, &bytes.Buffer{}, true); (err == nil) != ok || (log != nil) != ok {
			t.Errorf("level %q: %v", level, err)
		}
	}
}
