// The vectors of others, and a second implementation, against pkg/mofn. A module of its own, because Wycheproof is 109 MB.
// Its path lies below pkg/mofn, though its folder does not, so that it may import pkg/mofn/internal/composite: what is tested
// here are the halves, which nobody else should see.
module sluice/pkg/mofn/conformance

go 1.26.6

require (
	filippo.io/mldsa v1.0.0
	github.com/c2sp/wycheproof v0.0.0-20260902155932-3fa63dd0344a
	github.com/cloudflare/circl v1.6.5
	sluice v0.0.0
)

require (
	golang.org/x/crypto v0.58.0 // indirect
	golang.org/x/sys v0.49.0 // indirect
	golang.org/x/text v0.43.0 // indirect
)

replace sluice => ../..
