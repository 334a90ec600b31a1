// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"time"

	"sluice/integration/lab"
	"sluice/internal/console"
	"sluice/internal/hub/hubtest"
	"sluice/internal/link/linktest"
)

// demo is the state of a demonstration.
type demo struct {
	lab.Site
	opt   options
	style console.Style
	tl    *console.Timeline
	out   io.Writer

	input    input
	hub      *hubtest.Server
	hubURL   string
	relay    *linktest.Relay
	listen   string // the receiver's UDP address
	low      *lab.Daemon
	high     *lab.Daemon
	minio    *lab.Daemon
	s3       string   // endpoint of MinIO
	releases []string // release ids, in order
	bulletin []byte   // the bastion's word that names the second of them
	closers  []func() error
}

// prepareSite makes what a site has before its first release: keys, a policy, a trust object that both sides pin, configurations.
func (d *demo) prepareSite(ctx context.Context) error {
	if err := d.Setup(ctx); err != nil {
		return err
	}
	d.tl.Stage("both", "trust", "trust object, version 1", -1, "2 of 3 security and 1 of 2 quality officers; words: "+d.Words)
	if err := d.startHub(); err != nil {
		return err
	}
	if err := d.openLink(ctx); err != nil {
		return err
	}
	if d.opt.minio != "" {
		if err := d.startMinIO(ctx); err != nil {
			return err
		}
		d.tl.Stage("high", "running", "MinIO", -1, "a real one; it takes forged writes (CVE-2026-41145), which the receiver refuses unless its configuration says otherwise, as here")
	}
	if err := d.writeConfigs(); err != nil {
		return err
	}
	for _, check := range [][]string{{"bastion-packer", "low.yaml"}, {"diode-receiver", "high.yaml"}} {
		if _, err := d.Call(ctx, check[0], "check", "--config", d.Path(check[1])); err != nil {
			return err
		}
	}
	return nil
}

func (d *demo) startHub() error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	srv := &http.Server{Handler: d.hub, ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = srv.Serve(l) }()
	d.closers = append(d.closers, srv.Close)
	d.hubURL = "http://" + l.Addr().String()
	return nil
}

// openLink puts the lossy relay between the two sides. What it forwards goes one way only.
func (d *demo) openLink(ctx context.Context) (err error) {
	if d.listen, err = lab.FreeUDP(); err != nil {
		return err
	}
	d.relay, err = linktest.StartRelay(ctx, linktest.RelayOptions{Listen: "127.0.0.1:0", Forward: d.listen, Faults: linktest.Options{Seed: 1, Drop: d.opt.loss}})
	if err != nil {
		return err
	}
	d.closers = append(d.closers, d.relay.Close)
	return nil
}

// clean stops what still runs and removes the working directory. After a failure the logs are shown.
func (d *demo) clean(cause error) error {
	var errs []error
	for _, p := range []*lab.Daemon{d.low, d.high, d.minio} {
		if p == nil {
			continue
		}
		if err := p.Stop(10 * time.Second); err != nil && cause == nil && p != d.minio {
			errs = append(errs, err)
		}
		if cause != nil {
			fmt.Fprintf(d.out, "\n--- %s.log ---\n%s\n", p.Name, p.Tail(20))
		}
	}
	for _, c := range d.closers {
		errs = append(errs, c())
	}
	if d.opt.keep {
		fmt.Fprintf(d.out, "kept: %s\n", d.Dir)
		return errors.Join(errs...)
	}
	return errors.Join(append(errs, os.RemoveAll(d.Dir))...)
}
