// SPDX-License-Identifier: Apache-2.0

package largepage

import "golang.org/x/sys/unix"

// advise asks for large pages (madvise(2)): MADV_HUGEPAGE for what is touched from now on, MADV_COLLAPSE (Linux 6.1) for what the
// heap had touched before. Both may be refused, which costs nothing but time.
func advise(b []byte) {
	_ = unix.Madvise(b, unix.MADV_HUGEPAGE)
	_ = unix.Madvise(b, unix.MADV_COLLAPSE)
}
