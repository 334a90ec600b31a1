// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"sluice/integration/lab"
)

// rate is the sending rate of the demonstration: what a small machine carries with a relay between the daemons and default socket buffers.
const rate = "500Mbit"

func (d *demo) writeConfigs() error {
	watch := fmt.Sprintf("watch:\n- repo: %s\n  stream: %s\n  every: 1s\n%s", d.input.repo, d.input.stream, d.input.watch(d.Dir))
	registry := ""
	if d.minio != nil {
		registry = fmt.Sprintf("s3: {endpoint: \"%s\", bucket: models, create_bucket: true, allow_forged_trailer: true, access_key_file: %s, secret_key_file: %s}", d.s3, d.Path("s3-access"), d.Path("s3-secret"))
	}
	return errors.Join(d.LowConfig(d.hubURL, d.relay.Addr(), rate, watch), d.HighConfig(d.listen, registry))
}

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
	err = errors.Join(os.WriteFile(d.Path("s3-access"), []byte(access+"\n"), 0o600), os.WriteFile(d.Path("s3-secret"), []byte(secret+"\n"), 0o600))
	if err != nil {
		return err
	}
	env := []string{"MINIO_ROOT_USER=" + access, "MINIO_ROOT_PASSWORD=" + secret, "MINIO_BROWSER=off", "MINIO_UPDATE=off"}
	if d.minio, err = d.Start("minio", env, nil, d.opt.minio, "server", "--address", addr, "--quiet", d.Path("minio")); err != nil {
		return err
	}
	d.s3 = "http://" + addr
	client := &http.Client{Timeout: 2 * time.Second}
	return lab.WaitFor(ctx, 20*time.Second, "MinIO", func() (bool, error) {
		if err := d.minio.Died(); err != nil {
			return false, err
		}
		resp, err := client.Get(d.s3 + "/minio/health/ready")
		if err != nil {
			return false, nil //nolint:nilerr // not up yet
		}
		return resp.StatusCode == http.StatusOK, resp.Body.Close()
	})
}

func indent(text string) string {
	return "    " + strings.ReplaceAll(strings.TrimSpace(text), "\n", "\n    ")
}
