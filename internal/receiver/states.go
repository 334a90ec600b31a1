// SPDX-License-Identifier: Apache-2.0

package receiver

import (
	"encoding/json"
	"fmt"
	"time"

	"sluice/internal/journal"
)

// States of a job. The picture is in doc.go.
const (
	stateReceiving = "RECEIVING"
	stateReceived  = "RECEIVED"
	stateVerified  = "VERIFIED"
	stateInspected = "INSPECTED"
	stateHeld      = "HELD"
	statePublished = "PUBLISHED"
	stateWithdrawn = "WITHDRAWN"
	stateRejected  = "REJECTED"
)

// transitions are the legal moves. A payload found damaged is received again; a rejected release may be received again: with more approvals, or from a medium
// without the damage. A published one is withdrawn by an officer's stop and given back by the quorum, or revoked for good.
func transitions() map[string][]string {
	return map[string][]string{
		stateReceiving: {stateReceived, stateRejected},
		stateReceived:  {stateVerified, stateReceiving, stateRejected},
		stateVerified:  {stateInspected, stateRejected},
		stateInspected: {stateHeld, stateRejected},
		stateHeld:      {statePublished, stateReceiving, stateRejected},
		statePublished: {stateWithdrawn},
		stateWithdrawn: {statePublished},
		stateRejected:  {stateReceiving},
	}
}

// jobData is what a job carries beyond the journal's own fields.
type jobData struct {
	Envelope  string   `json:"envelope"` // SHA-256 of the envelope stream in the spool
	Files     int      `json:"files"`
	Bytes     int64    `json:"bytes"`
	Version   string   `json:"version"`
	Repo      string   `json:"repo,omitempty"`
	Gate      string   `json:"gate"`
	Officers  []string `json:"officers,omitempty"`
	Stopped   bool     `json:"stopped,omitempty"`    // an officer rejected it: no envelope of it is taken any more
	Damaged   int      `json:"damaged,omitempty"`    // times that the payload was found damaged after reception
	Decisions []string `json:"decisions,omitempty"`  // digests of the officers' words that are in the log
	Listed    bool     `json:"listed,omitempty"`     // a snapshot named it
	Revoked   bool     `json:"revoked,omitempty"`    // withdrawn for good
	Confirmed bool     `json:"confirmed,omitempty"`  // the log says that a person here confirmed it
	SpoolKept bool     `json:"spool_kept,omitempty"` // published, and the spool copy is still there
	ReadBack  string   `json:"read_back,omitempty"`  // when the published bytes were read back before the spool went
}

func dataOf(j journal.Job) (jobData, error) {
	var d jobData
	if len(j.Data) == 0 {
		return d, nil
	}
	if err := json.Unmarshal(j.Data, &d); err != nil {
		return d, fmt.Errorf("job %s: %w", j.ID, err)
	}
	return d, nil
}

// clearError begins a state afresh: neither the troubles nor the waiting time of the one before count in it.
func clearError(j *journal.Job) error {
	j.LastError, j.Attempts, j.NotBefore = "", 0, time.Time{}
	return nil
}

// setData changes the data of a job inside a journal mutation.
func setData(j *journal.Job, change func(*jobData)) error {
	d, err := dataOf(*j)
	if err != nil {
		return err
	}
	change(&d)
	j.Data, err = json.Marshal(d)
	return err
}
