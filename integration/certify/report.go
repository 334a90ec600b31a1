// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"
)

// Verdicts of a row.
const (
	pass = "PASS"
	fail = "FAIL"
	skip = "SKIPPED"
)

// report is what is written.
type report struct {
	Commit  string    `json:"commit"`
	Time    time.Time `json:"time"`
	Host    string    `json:"host"`
	CPU     string    `json:"cpu"`
	Kernel  string    `json:"kernel"`
	Go      string    `json:"go"`
	Scale   float64   `json:"scale"`
	Seconds float64   `json:"seconds"`
	Rows    []result  `json:"rows"`
	book    book
}

// result is one row of it.
type result struct {
	Name      string     `json:"name"`
	Promise   string     `json:"promise"`
	Trials    int        `json:"trials"`
	Passed    int        `json:"passed"`
	Status    string     `json:"status"`
	Reason    string     `json:"reason,omitempty"` // why it was skipped, or what all trials together broke
	Figures   []measured `json:"figures,omitempty"`
	FirstSeed uint64     `json:"first_seed,omitempty"`
	Failures  []failure  `json:"failures,omitempty"`
	Seconds   float64    `json:"seconds"`
	table     string
}

// measured is a figure of a row.
type measured struct {
	Name  string  `json:"name"`
	Value float64 `json:"value"`
	Unit  string  `json:"unit"`
}

// failure is a trial that failed, with the seed that repeats it.
type failure struct {
	Seed  uint64 `json:"seed"`
	Error string `json:"error"`
}

func newReport(o options) *report {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	return &report{
		Commit: o.commit, Time: time.Now().UTC().Truncate(time.Second), Host: host, CPU: cpu(), Kernel: kernel(),
		Go: runtime.Version(), Scale: o.scale, book: books()[o.book()],
	}
}

func kernel() string {
	b, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		return "unknown"
	}
	return "Linux " + strings.TrimSpace(string(b))
}

func cpu() string {
	b, err := os.ReadFile("/proc/cpuinfo")
	_, model, found := strings.Cut(string(b), "model name\t: ")
	if err != nil || !found {
		model = runtime.GOARCH
	}
	model, _, _ = strings.Cut(model, "\n")
	return fmt.Sprintf("%d x %s", runtime.NumCPU(), model)
}

// skipped is the result of a row that was not tried.
func (r result) skipped(why error) result {
	r.Status, r.Reason = skip, why.Error()
	return r
}

// judged is the result of a row that was tried.
func (r result) judged(of row, all []played) result {
	r.Status = pass
	var kept []figures
	for _, p := range all {
		if errors.Is(p.err, errSkip) {
			return r.skipped(p.err)
		}
		r.Trials++
		if p.figures != nil {
			kept = append(kept, p.figures)
		}
		if p.err == nil {
			r.Passed++
			continue
		}
		r.Status = fail
		if len(r.Failures) < maxFailures {
			r.Failures = append(r.Failures, failure{p.seed, p.err.Error()})
		}
	}
	if r.Trials == 0 {
		r.Status, r.Reason = fail, "interrupted before the first trial"
	}
	if err := of.verdict(kept); err != nil {
		r.Status, r.Reason = fail, err.Error()
	}
	r.Figures = of.fold(kept)
	return r
}

func (r row) verdict(all []figures) error {
	if r.judge == nil {
		return nil
	}
	return r.judge(all)
}

// fold makes the figures of the report out of those of the trials.
func (r row) fold(all []figures) (list []measured) {
	for _, column := range r.report {
		var values []float64
		for _, f := range all {
			if v, ok := f[column.name]; ok {
				values = append(values, v)
			}
		}
		if len(values) > 0 {
			list = append(list, measured{column.name, column.fold(values), column.unit})
		}
	}
	return list
}

// verdict is errFailed with the names of the rows that failed.
func (r *report) verdict() error {
	var failed []string
	for _, row := range r.Rows {
		if row.Status == fail {
			failed = append(failed, row.Name)
		}
	}
	if len(failed) == 0 {
		return nil
	}
	return fmt.Errorf("%w: %s", errFailed, strings.Join(failed, ", "))
}

// write writes both reports.
func (r *report) write(o options) error {
	j, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return errors.Join(writeFile(o.file(o.json, ".json"), append(j, '\n')), writeFile(o.file(o.markdown, ".md"), []byte(r.text())))
}

func writeFile(name string, content []byte) error {
	if name == "" {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	return os.WriteFile(name, content, 0o644)
}

// line is a result on the terminal; a failing trial shows how it is repeated.
func (r result) line() string {
	line := fmt.Sprintf("%-5s %-7s %5d/%-5d %6.1f s  %s", r.Name, r.Status, r.Passed, r.Trials, r.Seconds, r.measured())
	if r.Reason != "" {
		line += " " + r.Reason
	}
	for _, f := range r.Failures {
		line += fmt.Sprintf("\n      seed %d: %s\n      repeat with: certify -table %s -row %s -seed %d -trials 1", f.Seed, oneLine(f.Error), r.table, r.Name, f.Seed)
	}
	return line
}

func oneLine(s string) string { return strings.ReplaceAll(s, "\n", "; ") }

func (r result) measured() string {
	var parts []string
	for _, f := range r.Figures {
		parts = append(parts, number(f.Value)+" "+f.Unit)
	}
	return strings.Join(parts, "; ")
}

// number writes a figure with as many places as a reader needs.
func number(v float64) string {
	if v == float64(int64(v)) {
		return group(strconv.FormatInt(int64(v), 10))
	}
	return strconv.FormatFloat(v, 'f', 2, 64)
}

// group puts a comma before every third digit.
func group(digits string) string {
	if len(digits) <= 3 {
		return digits
	}
	return group(digits[:len(digits)-3]) + "," + digits[len(digits)-3:]
}

// text is the report for people.
func (r *report) text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "# %s\n\nWritten by `make %s`; [docs/certification.md](../certification.md) says how to read it.\n\n", r.book.title, r.book.target)
	fmt.Fprintf(&b, "| | |\n|---|---|\n| commit | %s |\n| time | %s |\n| host | %s |\n| processors | %s |\n| kernel | %s |\n| Go | %s |\n| scale | %v |\n| took | %.0f s |\n\n",
		r.Commit, r.Time.Format(time.RFC3339), r.Host, r.CPU, r.Kernel, r.Go, r.Scale, r.Seconds)
	b.WriteString("| row | promise | trials kept | result | measured | seeds |\n|---|---|---|---|---|---|\n")
	for _, row := range r.Rows {
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s | %s |\n", row.Name, row.Promise, row.kept(), row.Status, row.told(), row.seeds())
	}
	b.WriteString("\n" + r.book.repeat + "\n")
	r.failures(&b)
	return b.String()
}

func (r *report) failures(b *strings.Builder) {
	for _, row := range r.Rows {
		for _, f := range row.Failures {
			fmt.Fprintf(b, "\n- **%s failed** with seed %d: %s\n", row.Name, f.Seed, oneLine(f.Error))
		}
	}
}

func (r result) kept() string {
	if r.Trials == 0 {
		return ""
	}
	return group(strconv.Itoa(r.Passed)) + "/" + group(strconv.Itoa(r.Trials))
}

func (r result) told() string {
	if r.Reason == "" {
		return r.measured()
	}
	return strings.TrimPrefix(r.measured()+"; "+oneLine(r.Reason), "; ")
}

func (r result) seeds() string {
	if r.Trials == 0 || r.FirstSeed == 0 {
		return ""
	}
	return fmt.Sprintf("%d to %d", r.FirstSeed, r.FirstSeed+uint64(r.Trials)-1)
}
