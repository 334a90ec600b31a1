// SPDX-License-Identifier: Apache-2.0

package recv

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"testing"

	"go.uber.org/zap"
)

// roleEnv makes the test binary another process: a front, one that misbehaves, or one that tries what it may not.
const roleEnv = "SLUICE_RECV_TEST_ROLE"

func TestMain(m *testing.M) {
	role := os.Getenv(roleEnv)
	if role == "" {
		os.Exit(m.Run())
	}
	play := map[string]func() error{
		"front": front, "probe": probe, "free": probe,
		"greedy": greedy, "holder": holder, "liar": liar, "babbler": babbler, "mute": mute, "crasher": crasher,
	}[role]
	if play == nil {
		panic("no role " + role)
	}
	if err := play(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// inherited is what the process was started with; the last argument is the number of sockets.
func inherited() (*Front, error) {
	count, err := strconv.Atoi(os.Args[len(os.Args)-1])
	if err != nil {
		return nil, err
	}
	control, sockets, err := Inherited(count)
	if err != nil {
		return nil, err
	}
	return newFront(control, sockets, zap.NewNop()), nil
}

// front is an honest one.
func front() error {
	f, err := inherited()
	if err != nil {
		return err
	}
	return f.serve(context.Background())
}
