// SPDX-License-Identifier: Apache-2.0

package integration_test

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"sluice/internal/admin"
)

// rulesFile is what a site gives to its Prometheus.
const rulesFile = "../deploy/prometheus/sluice.rules.yaml"

// rules is as much of a file of alert rules as is judged here; what Prometheus does not know, the strict decoder finds.
type rules struct {
	Groups []struct {
		Name  string
		Rules []struct {
			Alert, Expr, For    string
			Labels, Annotations map[string]string
		}
	}
}

// TestRules: every metric, and every label with its value, that a rule names is served by the real daemons, and what a person needs is
// alerted on. A counter is asked for its increase, a gauge is not.
func TestRules(t *testing.T) {
	r := readRules(t, rulesFile)
	s := newSite(t)
	addr := listening(t, s)
	must(t, s.LowConfig("http://127.0.0.1:9", addr, "300Mbit", ""))
	receive(t, s)
	startLow(t, s)
	pages := map[string]string{"sluice-receiver": page(t, s.Path("high.sock")), "sluice-packer": page(t, s.Path("low.sock"))}
	seen := map[string]bool{}
	for _, g := range r.Groups {
		for _, rule := range g.Rules {
			seen[rule.Alert] = true
			for _, problem := range judgeRule(rule.Expr+" "+rule.Annotations["summary"], pages[g.Name]) {
				t.Errorf("%s: %s", rule.Alert, problem)
			}
			if rule.Labels["severity"] == "" || rule.Annotations["summary"] == "" || rule.Annotations["description"] == "" {
				t.Errorf("%s: severity, summary or description is missing", rule.Alert)
			}
		}
	}
	for _, alert := range []string{"SluiceLinkDown", "SluiceLinkLoss", "SluiceKernelDrops", "SluiceReleaseNotArrived", "SluiceBastionQuiet"} {
		if !seen[alert] {
			t.Errorf("%s has no %s", rulesFile, alert)
		}
	}
}

func readRules(t *testing.T, name string) (r rules) {
	t.Helper()
	f, err := os.Open(name)
	must(t, err)
	defer f.Close()
	d := yaml.NewDecoder(f)
	d.KnownFields(true)
	must(t, d.Decode(&r))
	return r
}

func page(t *testing.T, socket string) string {
	t.Helper()
	var b []byte
	must(t, admin.Fetch(t.Context(), "unix:"+socket, "/metrics", &b))
	return string(b)
}

var (
	namedMetric = regexp.MustCompile(`(increase\()?\b(sluice_[a-z_]+)(?:\{([a-z]+)="([^"]+)"\})?`)
	typeLine    = regexp.MustCompile(`(?m)^# TYPE (\S+) (\S+)$`)
)

// judgeRule names what an expression asks for and a page does not serve, and counters that are taken for what they are now.
func judgeRule(expr, page string) (problems []string) {
	kinds := map[string]string{}
	for _, m := range typeLine.FindAllStringSubmatch(page, -1) {
		kinds[m[1]] = m[2]
	}
	for _, m := range namedMetric.FindAllStringSubmatch(expr, -1) {
		name, kind := m[2], kinds[m[2]]
		series := fmt.Sprintf("%s{%s=%q}", name, m[3], m[4])
		switch {
		case kind == "":
			problems = append(problems, name+" is not served")
		case m[3] != "" && !strings.Contains(page, "\n"+series+" "):
			problems = append(problems, series+" is not served")
		case (kind == "counter") != (m[1] != ""):
			problems = append(problems, name+" is a "+kind+": increase() is for counters, and a counter alone never falls")
		}
	}
	return problems
}

// TestRulesJudge plants each kind of mistake, so that the test is known to bite.
func TestRulesJudge(t *testing.T) {
	const page = "# TYPE sluice_a_total counter\nsluice_a_total{outcome=\"x\"} 1\n# TYPE sluice_b gauge\nsluice_b 2\n"
	for expr, want := range map[string]string{
		"increase(sluice_a_total[5m]) > 0 and sluice_b == 0": "",
		`increase(sluice_a_total{outcome="x"}[5m]) > 0`:      "",
		"sluice_c > 0": "sluice_c is not served",
		`increase(sluice_a_total{outcome="y"}[5m]) > 0`: "is not served",
		"sluice_a_total > 0":                            "is a counter",
		"increase(sluice_b[5m]) > 0":                    "is a gauge",
	} {
		got := strings.Join(judgeRule(expr, page), "\n")
		if want == "" && got != "" || !strings.Contains(got, want) {
			t.Errorf("%s: %q, want %q", expr, got, want)
		}
	}
}
