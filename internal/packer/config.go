// SPDX-License-Identifier: Apache-2.0

package packer

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"time"

	"sluice/internal/strictyaml"
	"sluice/pkg/envelope"
	"sluice/pkg/quality"
)

// Config is the whole configuration of bastion-packer, one YAML file. Secrets are paths of files.
type Config struct {
	// State is the directory of the journal and of the jobs' work.
	State string `yaml:"state"`
	Log   Log    `yaml:"log"`
	Admin Admin  `yaml:"admin"`
	Trust Trust  `yaml:"trust"`
	Keys  Keys   `yaml:"keys"`
	Hub   Hub    `yaml:"hub"`
	// Watch lists what is mirrored.
	Watch []Watch `yaml:"watch"`
	// DropBox is the folder that officers read requests from and write approvals into: a share, or a stick's mount point.
	DropBox string    `yaml:"drop_box"`
	Gate    Gate      `yaml:"gate"`
	Seal    Statement `yaml:"seal"`
	Link    Link      `yaml:"link"`
	Audit   Audit     `yaml:"audit"`
	// Bulletin needs keys.heartbeat.
	Bulletin Bulletin `yaml:"bulletin"`

	// Digest is the SHA-256 of the file that it was read from, for the audit log.
	Digest string `yaml:"-"`
}

// Audit names the log.
type Audit struct {
	ID string `yaml:"id"` // of this bastion, in the origin line sluice/low/ID
}

// Log says how much is logged, and how.
type Log struct {
	Level  string `yaml:"level"`  // debug, info, warn, error
	Format string `yaml:"format"` // json or text
}

// Admin is the address of /healthz, /readyz, /metrics and /status: host:port on loopback, or unix:/path.
type Admin struct {
	Listen string `yaml:"listen"`
}

// Trust names the first trust object and the fingerprint that a person confirmed.
type Trust struct {
	Object      string `yaml:"object"`
	Fingerprint string `yaml:"fingerprint"`
	// Quarantine is the time until a later trust object takes effect here: as long as at the receivers, so that nothing is sealed under
	// a policy that they do not have yet.
	Quarantine strictyaml.Duration `yaml:"quarantine"`
}

// Bulletin says how often what receivers must not miss is said again.
type Bulletin struct {
	Every strictyaml.Duration `yaml:"every"`
}

// Keys names the bastion's key files and the file with their passphrase.
type Keys struct {
	Packer         string `yaml:"packer"`    // suite H1 or H2, signs release statements; may be in a token
	Link           string `yaml:"link"`      // suite ED25519-LINK, announces sessions
	Log            string `yaml:"log"`       // suite H1 or H2, signs checkpoints of the audit log; optional
	Heartbeat      string `yaml:"heartbeat"` // suite H1 or H2, signs the snapshots of bulletins; optional
	PassphraseFile string `yaml:"passphrase_file"`
}

// Hub is the upstream.
type Hub struct {
	Endpoint  string              `yaml:"endpoint"`
	TokenFile string              `yaml:"token_file"`
	Workers   int                 `yaml:"workers"`
	MaxWait   strictyaml.Duration `yaml:"max_wait"` // cap on waits that the server asks for
}

// Watch is one upstream repository that becomes releases of one stream.
type Watch struct {
	Repo     string              `yaml:"repo"`
	Revision string              `yaml:"revision"`
	Every    strictyaml.Duration `yaml:"every"`
	Stream   string              `yaml:"stream"`
	Name     string              `yaml:"name"`
	Kind     envelope.Kind       `yaml:"kind"`
	Allow    []string            `yaml:"allow"`  // patterns as Hub clients mean them; empty: all
	Ignore   []string            `yaml:"ignore"` // patterns that are left behind
	Base     *Base               `yaml:"base"`
	// Evaluations is a directory with base/ and quantized/, lm-eval samples of both models; {commit} is replaced.
	Evaluations string `yaml:"evaluations"`
	// GateException publishes without a gate, for the reason given, which every officer is shown.
	GateException string `yaml:"gate_exception"`
	// Accept lists inspection rules whose findings are accepted by declared policy.
	Accept []string `yaml:"accept"`
}

// Base is the model that a quantized one was made from.
type Base struct {
	Repo     string   `yaml:"repo"`
	Revision string   `yaml:"revision"`
	Allow    []string `yaml:"allow"`
	Ignore   []string `yaml:"ignore"`
}

// Gate holds the declared margins of the non-inferiority test.
type Gate struct {
	MMLU      strictyaml.Percent `yaml:"mmlu_margin"`
	HumanEval strictyaml.Percent `yaml:"humaneval_margin"`
	Alpha     strictyaml.Percent `yaml:"alpha"`
}

// Statement holds what every statement of this bastion says.
type Statement struct {
	Audience       []string            `yaml:"audience"`
	Classification string              `yaml:"classification"`
	Lifetime       strictyaml.Duration `yaml:"lifetime"`
	Epoch          int64               `yaml:"epoch"`
}

// Link is the UDP end of the diode.
type Link struct {
	Receiver string             `yaml:"receiver"` // a receiver of the trust object
	Address  string             `yaml:"address"`  // or Lanes
	Lanes    []Lane             `yaml:"lanes"`
	MTU      int                `yaml:"mtu"`  // 1500 or 9000
	Rate     strictyaml.BitRate `yaml:"rate"` // of a lane that names none
	Repair   strictyaml.Percent `yaml:"repair"`
	Passes   Passes             `yaml:"passes"`
	GSO      string             `yaml:"gso"` // auto, on, off
	// Settle is how long the sender waits after the envelope for the receiver to verify it and reserve space; 0: by size.
	Settle     strictyaml.Duration `yaml:"settle"`
	SendBuffer strictyaml.Bytes    `yaml:"send_buffer"`
}

// DefaultConfig is what a key that is left out means.
func DefaultConfig() Config {
	m := quality.DefaultMargins()
	return Config{
		State: "/var/lib/bastion-packer",
		Log:   Log{Level: "info", Format: "json"},
		Admin: Admin{Listen: "127.0.0.1:9401"},
		Hub:   Hub{Endpoint: "https://huggingface.co", Workers: 4, MaxWait: strictyaml.Duration(5 * time.Minute)},
		Gate: Gate{
			MMLU: strictyaml.Percent(m.MMLU.Absolute * 100), HumanEval: strictyaml.Percent(m.HumanEval.Absolute * 100),
			Alpha: strictyaml.Percent(m.Alpha * 100),
		},
		Seal:  Statement{Classification: "UNCLASSIFIED", Lifetime: strictyaml.Duration(90 * 24 * time.Hour), Epoch: 1},
		Trust: Trust{Quarantine: strictyaml.Duration(72 * time.Hour)},
		Audit: Audit{ID: "bastion"}, Bulletin: Bulletin{Every: strictyaml.Duration(time.Minute)},
		Link: Link{MTU: 1500, Rate: 900_000_000, Repair: 10, Passes: CountedPasses(2), GSO: "auto", SendBuffer: 4 << 20},
	}
}

// LoadConfig reads, overlays on the defaults and validates. Every problem is reported at once.
func LoadConfig(path string) (Config, error) {
	c := DefaultConfig()
	data, err := os.ReadFile(path)
	if err != nil {
		return c, fmt.Errorf("configuration: %w", err)
	}
	if err := strictyaml.Load(path, data, &c); err != nil {
		return c, err
	}
	c.Digest = fmt.Sprintf("%x", sha256.Sum256(data))
	c.fillWatches()
	if err := c.Validate(); err != nil {
		return c, fmt.Errorf("%s:\n%w", path, err)
	}
	return c, nil
}

// fillWatches sets what a watch leaves out.
func (c *Config) fillWatches() {
	for i := range c.Watch {
		w := &c.Watch[i]
		if w.Revision == "" {
			w.Revision = "main"
		}
		if w.Kind == "" {
			w.Kind = envelope.KindModelWeights
		}
		if w.Name == "" {
			w.Name = slug(w.Repo)
		}
		if w.Every == 0 {
			w.Every = strictyaml.Duration(15 * time.Minute)
		}
		if w.Base != nil && w.Base.Revision == "" {
			w.Base.Revision = "main"
		}
	}
}

var (
	fingerprintRule = regexp.MustCompile(`^[0-9a-f]{64}$`)
	streamRule      = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]*(/[a-z0-9][a-z0-9._-]*)*$`)
	receiverRule    = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,63}$`)
	// classificationRule is docs/spec/envelope.md section 4.
	classificationRule = regexp.MustCompile(`^[ -~]{1,64}$`)
	nameRule           = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,127}$`)
)

// Validate reports every problem of the values, without touching the disk or the network.
func (c *Config) Validate() error {
	p := problems{}
	p.check(c.State != "", "state: a directory is required")
	p.check(slices.Contains([]string{"debug", "info", "warn", "error"}, c.Log.Level), "log.level: %q is not debug, info, warn or error", c.Log.Level)
	p.check(c.Log.Format == "json" || c.Log.Format == "text", "log.format: %q is neither json nor text", c.Log.Format)
	p.check(c.Admin.Listen != "", "admin.listen: an address is required")
	p.check(c.Trust.Object != "", "trust.object: the file of the trust object is required")
	p.check(fingerprintRule.MatchString(c.Trust.Fingerprint), "trust.fingerprint: 64 hex digits are required (bastion-packer trust fingerprint FILE shows them)")
	p.check(c.Keys.Packer != "", "keys.packer: the packer's key file is required")
	p.check(c.Keys.Link != "", "keys.link: the link key file is required")
	p.check(c.Keys.PassphraseFile != "", "keys.passphrase_file: a file is required")
	p.check(c.DropBox != "", "drop_box: the folder of requests and approvals is required")
	p.check(c.Hub.Workers >= 1 && c.Hub.Workers <= 64, "hub.workers: must be 1 to 64")
	p.check(c.Gate.margins().Validate() == nil, "gate: mmlu_margin and humaneval_margin must be at most 50%%, alpha above 0%% and below 50%%")
	p.check(receiverRule.MatchString(c.Audit.ID), "audit.id: %q is no name of a log (small letters, digits, . _ -)", c.Audit.ID)
	p.check(c.Trust.Quarantine >= 0, "trust.quarantine: must not be negative")
	p.check(c.Bulletin.Every >= strictyaml.Duration(time.Second) && c.Bulletin.Every <= strictyaml.Duration(24*time.Hour), "bulletin.every: must be 1s to 24h")
	c.Seal.validate(&p)
	c.Link.validate(&p)
	p.check(slices.Contains(c.Seal.Audience, c.Link.Receiver), "seal.audience: must hold link.receiver %q, which would refuse the release otherwise", c.Link.Receiver)
	seen := map[string]bool{}
	for i := range c.Watch {
		c.Watch[i].validate(&p, fmt.Sprintf("watch[%d]", i))
		p.check(!seen[c.Watch[i].Stream], "watch[%d].stream: %q has two watches; a stream has one line of succession", i, c.Watch[i].Stream)
		seen[c.Watch[i].Stream] = true
	}
	return p.join()
}

func (s *Statement) validate(p *problems) {
	p.check(len(s.Audience) > 0, "seal.audience: at least one receiver id is required")
	for _, r := range s.Audience {
		p.check(receiverRule.MatchString(r), "seal.audience: %q is not a receiver id (small letters, digits, . _ -)", r)
	}
	p.check(classificationRule.MatchString(s.Classification), "seal.classification: 1 to 64 printable ASCII characters are required")
	p.check(s.Lifetime > 0, "seal.lifetime: must be above 0")
	p.check(s.Epoch >= 0, "seal.epoch: must not be negative")
}

// minRate is the slowest link, bits a second.
const minRate = 1_000_000

func (l *Link) validate(p *problems) {
	l.validateLanes(p)
	p.check(l.Receiver != "", "link.receiver: a receiver of the trust object is required")
	p.check(l.MTU == 1500 || l.MTU == 9000, "link.mtu: %d is neither 1500 nor 9000", l.MTU)
	p.check(l.Rate >= minRate, "link.rate: at least 1Mbit is required; set it to 90 %% of what the diode takes")
	p.check(l.Repair > 0 && l.Repair <= 33, "link.repair: must be above 0 and at most 33%%")
	l.Passes.validate(p)
	p.check(l.GSO == "auto" || l.GSO == "on" || l.GSO == "off", "link.gso: %q is not auto, on or off", l.GSO)
}

func (w *Watch) validate(p *problems, at string) {
	p.check(w.Repo != "", "%s.repo: org/name is required", at)
	p.check(streamRule.MatchString(w.Stream), "%s.stream: %q is no stream (small letters, digits, . _ / -)", at, w.Stream)
	p.check(nameRule.MatchString(w.Name), "%s.name: %q is no release name (small letters, digits, . _ -)", at, w.Name)
	p.check(slices.Contains(kinds(), w.Kind), "%s.kind: %q is no kind of release", at, w.Kind)
	p.check(w.Every > 0, "%s.every: must be above 0", at)
	gated := w.Evaluations != ""
	p.check(gated != (w.GateException != "") || w.Kind != envelope.KindModelWeights,
		"%s: a model needs either evaluations (a directory with base/ and quantized/) or gate_exception (a reason that every officer is shown)", at)
	p.check(!gated || w.Base != nil, "%s.base: required with evaluations", at)
}

// kinds of docs/spec/envelope.md section 4 that a watched repository can become.
func kinds() []envelope.Kind {
	return []envelope.Kind{envelope.KindModelWeights, envelope.KindSoftwarePackage, envelope.KindDataset}
}

type problems struct{ errs []error }

func (p *problems) check(ok bool, format string, args ...any) {
	if !ok {
		p.errs = append(p.errs, fmt.Errorf("  "+format, args...))
	}
}

func (p *problems) join() error { return errors.Join(p.errs...) }
