// SPDX-License-Identifier: Apache-2.0

package linktest

import (
	"crypto/ed25519"

	"sluice/internal/link"
)

// Opener opens announcements with keys that are known to be good.
func Opener(private []byte, links ...ed25519.PublicKey) *link.AnnouncementOpener {
	o, err := link.NewAnnouncementOpener(private, links)
	if err != nil {
		panic("linktest: " + err.Error())
	}
	return o
}
