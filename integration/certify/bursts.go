// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
)

// burstSource is the model of row N2 as a program of the kernel's traffic control (tc-bpf(8)), which nftables has no words for. P and R
// are those of linktest.Burst.
const burstSource = `#include <linux/bpf.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_helpers.h>
#define Q(x) ((__u32)((x) * 4294967295.0))
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 1); __type(key, __u32); __type(value, __u64); } state SEC(".maps");
SEC("tc") int bursts(struct __sk_buff *s) {
  __u32 key = 0, draw = bpf_get_prandom_u32();
  __u64 *bad = bpf_map_lookup_elem(&state, &key);
  if (!bad) return TC_ACT_OK;
  if (*bad) { if (draw < Q(R)) *bad = 0; } else { if (draw < Q(P)) *bad = 1; }
  return *bad ? TC_ACT_SHOT : TC_ACT_OK;
}
char terms[] SEC("license") = "GPL";
`

// bpfHeader is of libbpf-dev.
const bpfHeader = "/usr/include/bpf/bpf_helpers.h"

// burstProgram compiles it; without a compiler the error is errSkip.
func burstProgram(ctx context.Context, dir string) (object string, err error) {
	if _, err := exec.LookPath("clang"); err != nil {
		return "", fmt.Errorf("%w: no clang to compile the bursts for the kernel; it needs clang and libbpf-dev", errSkip)
	}
	if _, err := os.Stat(bpfHeader); err != nil {
		return "", fmt.Errorf("%w: no %s to compile the bursts with; it needs libbpf-dev", errSkip, bpfHeader)
	}
	b := bursts()
	object = dir + "/bursts.o"
	cmd := exec.CommandContext(ctx, "clang", "-O2", "-g", "-target", "bpf", fmt.Sprintf("-DP=%g", b.P), fmt.Sprintf("-DR=%g", b.R),
		"-I/usr/include/x86_64-linux-gnu", "-x", "c", "-c", "-", "-o", object)
	cmd.Stdin = strings.NewReader(burstSource)
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("clang: %w: %s", err, strings.TrimSpace(string(out)))
	}
	return object, nil
}

// realBursts sends one pass through the bursts of row N2.
func realBursts(ctx context.Context, c *certifier, _ uint64) (figures, error) {
	object, err := burstProgram(ctx, c.scratch)
	if err != nil {
		return nil, err
	}
	return c.bout(ctx, fieldSize, fieldRate, func(b *bout) (f figures, err error) {
		if err := b.up(ctx); err != nil {
			return nil, err
		}
		if err := b.diode.Filter(ctx, object); err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, b.diode.Unfilter(ctx), os.Remove(object)) }()
		s, err := b.onePass(ctx, nil)
		if err != nil {
			return nil, err
		}
		f = figures{"sealed": float64(s.Sent), "missing": float64(s.Missing), "lost": 100 * float64(s.Missing) / float64(s.Sent)}
		if s.Missing == 0 {
			err = errors.New("nothing was lost: this trial proves nothing")
		}
		return f, errors.Join(err, b.published(ctx))
	})
}
