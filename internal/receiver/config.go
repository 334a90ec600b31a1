// SPDX-License-Identifier: Apache-2.0

package receiver

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"time"

	"sluice/internal/strictyaml"
)

// Config is the whole configuration of diode-receiver, one YAML file. Secrets are paths of files.
type Config struct {
	// Receiver is this site's receiver id: the name in the trust object and in the audience of releases.
	Receiver string `yaml:"receiver"`
	// State is the directory of journal, spool and quarantine. One file system, best the registry's too.
	State string `yaml:"state"`
	Log   Log    `yaml:"log"`
	Admin Admin  `yaml:"admin"`
	Trust Trust  `yaml:"trust"`
	Keys  Keys   `yaml:"keys"`
	Link  Link   `yaml:"link"`
	// Registry is where releases are published: exactly one of its targets.
	Registry Registry `yaml:"registry"`
	// Retain is how long the spool copy outlives publication; the published bytes are read back once more before it goes.
	Retain strictyaml.Duration `yaml:"retain"`
	Limits Limits              `yaml:"limits"`
	// Confirm holds each release, beyond its hold time, until a person at this site confirmed it.
	Confirm bool `yaml:"confirm"`
	// Inspect lists inspection rules whose findings this site accepts.
	Inspect Inspect `yaml:"inspect"`

	// Digest is the SHA-256 of the file that it was read from, for the audit log.
	Digest string `yaml:"-"`
}

// Log says how much is logged, and how.
type Log struct {
	Level  string `yaml:"level"`  // debug, info, warn, error
	Format string `yaml:"format"` // json or text
}

// Admin is the address of /healthz, /readyz, /metrics, /status and /ticket: host:port on loopback, or unix:/path.
type Admin struct {
	Listen string `yaml:"listen"`
}

// Trust names the first trust object and the fingerprint that a person confirmed.
type Trust struct {
	Object      string `yaml:"object"`
	Fingerprint string `yaml:"fingerprint"`
	// Quarantine is the time from the arrival of a later trust object until it takes effect.
	Quarantine strictyaml.Duration `yaml:"quarantine"`
	// SecondPlace is a file on another disk that remembers how far this state had come, so that an old backup is noticed; "": none.
	SecondPlace string `yaml:"second_place"`
}

// Keys names the receiver's key files and the file with their passphrase.
type Keys struct {
	HPKE           string `yaml:"hpke"`   // suite XWING, opens sessions
	Ticket         string `yaml:"ticket"` // suite ED25519-TICKET, signs what is missing; optional
	Log            string `yaml:"log"`    // suite H1 or H2, signs checkpoints of the audit log; optional
	PassphraseFile string `yaml:"passphrase_file"`
	// ModelSigning is a PEM file (PKCS #8, ECDSA P-384, unencrypted) that signs models for tools that know OMS; optional.
	ModelSigning string `yaml:"model_signing"`
}

// Link is the UDP end of the diode. With socket activation the inherited sockets are used and Listen is only documentation.
type Link struct {
	Listen        Addresses        `yaml:"listen"`
	ReceiveBuffer strictyaml.Bytes `yaml:"receive_buffer"`
	// Confine says what the process that faces the link has to be held to: required, landlock and seccomp; best-effort, seccomp and
	// what landlock the kernel has, which may be none.
	Confine string `yaml:"confine"`
}

// The values of Link.Confine.
const (
	ConfineRequired   = "required"
	ConfineBestEffort = "best-effort"
)

// Registry holds the publication targets.
type Registry struct {
	Directory *DirectoryRegistry `yaml:"directory"`
	S3        *S3Registry        `yaml:"s3"`
}

// DirectoryRegistry publishes into a directory tree.
type DirectoryRegistry struct {
	Path string `yaml:"path"`
}

// S3Registry publishes into a bucket of any S3 server.
type S3Registry struct {
	Endpoint      string `yaml:"endpoint"`
	Bucket        string `yaml:"bucket"`
	Region        string `yaml:"region"`
	AccessKeyFile string `yaml:"access_key_file"`
	SecretKeyFile string `yaml:"secret_key_file"`
	CAFile        string `yaml:"ca_file"`
	// CreateBucket makes the bucket, versioned and object-locked, when it is not there.
	CreateBucket bool `yaml:"create_bucket"`
	// AllowForgedTrailer publishes to a server although it stores writes whose signature is forged, for anybody who knows an
	// access key's name (CVE-2026-41145: MinIO up to its last release). What such a bucket holds proves nothing by itself:
	// verify at use.
	AllowForgedTrailer bool `yaml:"allow_forged_trailer"`
}

// Limits bound what one release, and all open ones together, may claim.
type Limits struct {
	MaxRelease  strictyaml.Bytes `yaml:"max_release"`
	MaxReleases int              `yaml:"max_releases"`
}

// Inspect lists accepted findings by rule.
type Inspect struct {
	Exceptions []string `yaml:"exceptions"`
}

// DefaultConfig is what a key that is left out means.
func DefaultConfig() Config {
	return Config{
		State:  "/var/lib/diode-receiver",
		Log:    Log{Level: "info", Format: "json"},
		Admin:  Admin{Listen: "127.0.0.1:9402"},
		Link:   Link{Listen: Addresses{"0.0.0.0:4710"}, ReceiveBuffer: 64 << 20, Confine: ConfineRequired},
		Trust:  Trust{Quarantine: strictyaml.Duration(72 * time.Hour)},
		Retain: strictyaml.Duration(time.Minute),
		Limits: Limits{MaxRelease: 2 << 40, MaxReleases: 8},
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
	if err := c.Validate(); err != nil {
		return c, fmt.Errorf("%s:\n%w", path, err)
	}
	return c, nil
}

// nameRule is the rule for receiver ids (docs/spec/envelope.md section 4, audience).
var nameRule = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,63}$`)

// fingerprintRule is 64 hex digits.
var fingerprintRule = regexp.MustCompile(`^[0-9a-f]{64}$`)

// Validate reports every problem of the values, without touching the disk.
func (c *Config) Validate() error {
	var errs []error
	bad := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf("  "+format, args...))
		}
	}
	bad(nameRule.MatchString(c.Receiver), "receiver: %q is not a receiver id (small letters, digits, . _ -)", c.Receiver)
	bad(c.State != "", "state: a directory is required")
	bad(c.Log.Format == "json" || c.Log.Format == "text", "log.format: %q is neither json nor text", c.Log.Format)
	bad(slices.Contains([]string{"debug", "info", "warn", "error"}, c.Log.Level), "log.level: %q is not debug, info, warn or error", c.Log.Level)
	bad(c.Admin.Listen != "", "admin.listen: an address is required")
	bad(c.Trust.Object != "", "trust.object: the file of the trust object is required")
	bad(fingerprintRule.MatchString(c.Trust.Fingerprint), "trust.fingerprint: 64 hex digits are required (diode-receiver trust fingerprint FILE shows them; compare them with the paper record)")
	bad(c.Trust.Quarantine >= 0, "trust.quarantine: must not be negative")
	bad(c.Keys.HPKE != "", "keys.hpke: the receiver's key file is required")
	bad(c.Keys.PassphraseFile != "", "keys.passphrase_file: a file is required")
	errs = append(errs, c.Link.Listen.problems()...)
	bad(c.Link.Confine == ConfineRequired || c.Link.Confine == ConfineBestEffort, "link.confine: %q is neither %s nor %s", c.Link.Confine, ConfineRequired, ConfineBestEffort)
	bad(c.Limits.MaxRelease > 0, "limits.max_release: must be above 0")
	bad(c.Limits.MaxReleases >= 1 && c.Limits.MaxReleases <= 64, "limits.max_releases: must be 1 to 64")
	bad(c.Retain >= 0, "retain: must not be negative")
	errs = append(errs, c.Registry.problems()...)
	return errors.Join(errs...)
}

func (r *Registry) problems() []error {
	switch {
	case (r.Directory == nil) == (r.S3 == nil):
		return []error{errors.New("  registry: exactly one of directory and s3 is required")}
	case r.Directory != nil && r.Directory.Path == "":
		return []error{errors.New("  registry.directory.path: a directory is required")}
	case r.S3 != nil && (r.S3.Endpoint == "" || r.S3.Bucket == "" || r.S3.AccessKeyFile == "" || r.S3.SecretKeyFile == ""):
		return []error{errors.New("  registry.s3: endpoint, bucket, access_key_file and secret_key_file are required")}
	}
	return nil
}
