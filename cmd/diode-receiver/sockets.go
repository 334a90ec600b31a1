// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"

	"go.uber.org/zap"

	"sluice/internal/admin"
	"sluice/internal/link"
	"sluice/internal/receiver"
)

// listen takes the sockets that systemd holds, in the order of their names and of the lines of their unit, so that a restart loses nothing; or it
// opens those of link.listen. There is one a lane.
func listen(ctx context.Context, cfg receiver.Config, log *zap.Logger) (sockets []*os.File, err error) {
	defer func() {
		if err != nil {
			err = errors.Join(err, closeAll(sockets))
			sockets = nil
		}
	}()
	inherited, err := admin.Listeners()
	if err != nil {
		return nil, err
	}
	for _, name := range slices.Sorted(maps.Keys(inherited)) {
		log.Info("inherited sockets", zap.String("name", name), zap.Int("count", len(inherited[name])))
		sockets = append(sockets, inherited[name]...)
	}
	if n := len(sockets); n > link.MaxLanes {
		return sockets, fmt.Errorf("%d inherited sockets, at most %d: remove ListenDatagram= lines from the .socket unit", n, link.MaxLanes)
	}
	if len(sockets) > 0 {
		return sockets, nil
	}
	for _, address := range cfg.Link.Listen {
		f, err := link.BindUDP(ctx, address)
		if err != nil {
			return sockets, err
		}
		sockets = append(sockets, f)
	}
	return sockets, nil
}

func closeAll(files []*os.File) error {
	errs := make([]error, 0, len(files))
	for _, f := range files {
		errs = append(errs, f.Close())
	}
	return errors.Join(errs...)
}
