// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"time"
)

// rate is the sending rate of the demonstration: what two cores carry with a relay between them.
const rate = "800Mbit"

func (d *demo) writeConfigs() error {
	return writeAll(map[string]string{d.path("low.yaml"): d.lowConfig(), d.path("high.yaml"): d.highConfig()})
}

func writeAll(files map[string]string) error {
	for name, text := range files {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			return err
		}
	}
	return nil
}

func (d *demo) lowConfig() string {
	return fmt.Sprintf(`state: %[1]s/low
log: {level: info, format: text}
admin: {listen: "unix:%[1]s/low.sock"}
trust: {object: %[1]s/trust.json, fingerprint: %[2]s}
keys: {packer: %[1]s/keys/packer, link: %[1]s/keys/link, passphrase_file: %[1]s/passphrase}
hub: {endpoint: "%[3]s"}
drop_box: %[1]s/dropbox
seal: {audience: [rx-1], classification: UNCLASSIFIED}
link: {receiver: rx-1, address: "%[4]s", mtu: 1500, rate: %[5]s, repair: 10%%, passes: 1}
watch:
- repo: %[6]s
  stream: %[7]s
  every: 1s
%[8]s`, d.dir, d.trustFP, d.hubURL, d.relay.Addr(), rate, d.input.repo, d.input.stream, d.input.watch(d.dir))
}

func (d *demo) highConfig() string {
	registry := fmt.Sprintf("directory: {path: %s/registry}", d.dir)
	if d.minio != nil {
		registry = fmt.Sprintf("s3: {endpoint: \"%s\", bucket: models, access_key_file: %s/s3-access, secret_key_file: %s/s3-secret}", d.s3.endpoint, d.dir, d.dir)
	}
	return fmt.Sprintf(`receiver: rx-1
state: %[1]s/high
log: {level: info, format: text}
admin: {listen: "unix:%[1]s/high.sock"}
trust: {object: %[1]s/trust.json, fingerprint: %[2]s}
keys: {hpke: %[1]s/keys/rx-1, passphrase_file: %[1]s/passphrase}
link: {listen: "%[3]s", receive_buffer: 32MiB}
registry:
  %[4]s
`, d.dir, d.trustFP, d.listen, registry)
}

type s3Access struct{ endpoint string }

// startMinIO starts a real MinIO, unmodified, as a process of its own.
func (d *demo) startMinIO(ctx context.Context) error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	addr := l.Addr().String()
	if err := l.Close(); err != nil {
		return err
	}
	const access, secret = "sluice-demo", "sluice-demo-secret"
	if err := writeAll(map[string]string{d.path("s3-access"): access + "\n", d.path("s3-secret"): secret + "\n"}); err != nil {
		return err
	}
	env := []string{"MINIO_ROOT_USER=" + access, "MINIO_ROOT_PASSWORD=" + secret, "MINIO_BROWSER=off", "MINIO_UPDATE=off"}
	if d.minio, err = d.start("minio", env, d.opt.minio, "server", "--address", addr, "--quiet", d.path("minio")); err != nil {
		return err
	}
	d.s3.endpoint = "http://" + addr
	return waitFor(ctx, 20*time.Second, "MinIO", func() (bool, error) {
		if err := d.minio.died(); err != nil {
			return false, err
		}
		resp, err := http.Get(d.s3.endpoint + "/minio/health/ready")
		if err != nil {
			return false, nil //nolint:nilerr // not up yet
		}
		return resp.StatusCode == http.StatusOK, resp.Body.Close()
	})
}

// waitFor asks again and again until done, an error, or the time is up.
func waitFor(ctx context.Context, limit time.Duration, what string, done func() (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	t := time.NewTicker(50 * time.Millisecond)
	defer t.Stop()
	for {
		if ok, err := done(); ok || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: not within %s", what, limit)
		case <-t.C:
		}
	}
}

func indent(text string) string {
	return "    " + strings.ReplaceAll(strings.TrimSpace(text), "\n", "\n    ")
}
