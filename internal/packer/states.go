// SPDX-License-Identifier: Apache-2.0

package packer

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strings"

	"sluice/internal/journal"
)

// States of a job. The picture is in doc.go.
const (
	stateNew       = "NEW"
	stateMirrored  = "MIRRORED"
	stateInspected = "INSPECTED"
	stateGated     = "GATED"
	stateSealed    = "SEALED"
	stateApproved  = "APPROVED"
	stateSent      = "SENT"
	stateRefused   = "REFUSED"
)

func transitions() map[string][]string {
	return map[string][]string{
		stateNew:       {stateMirrored, stateRefused},
		stateMirrored:  {stateInspected, stateRefused},
		stateInspected: {stateGated, stateRefused},
		stateGated:     {stateSealed, stateRefused},
		stateSealed:    {stateApproved, stateRefused},
		stateApproved:  {stateSent, stateRefused},
		stateSent:      {},
		stateRefused:   {},
	}
}

// jobData is what a job carries beyond the journal's own fields: the watch as it was when the job was made, and what the stages found.
type jobData struct {
	Watch      Watch  `json:"watch"`
	Commit     string `json:"commit"`
	BaseCommit string `json:"base_commit,omitempty"`
	Bytes      int64  `json:"bytes,omitempty"`
	Files      int    `json:"files,omitempty"`
	Gate       string `json:"gate,omitempty"`
	Inspection string `json:"inspection,omitempty"`
	Waiting    string `json:"waiting,omitempty"` // what the job waits for, in words
	Passes     int    `json:"passes,omitempty"`  // passes sent

	Decisions []string `json:"decisions,omitempty"` // digests of the officers' words that are in the log

	LastPass *PassRecord `json:"last_pass,omitempty"`
}

func dataOf(j journal.Job) (jobData, error) {
	var d jobData
	if err := json.Unmarshal(j.Data, &d); err != nil {
		return d, fmt.Errorf("job %s: %w", j.ID, err)
	}
	return d, nil
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

var notInSlug = regexp.MustCompile(`[^a-z0-9._-]+`)

// slug turns a repository id into a release name: "Org/Model-X" -> "org.model-x".
func slug(repo string) string {
	s := strings.ToLower(strings.ReplaceAll(repo, "/", "."))
	return strings.Trim(notInSlug.ReplaceAllString(s, "-"), "-._")
}

// jobID names a job: readable, unique for (stream, commit), safe as a directory name.
func jobID(stream, commit string) string {
	return strings.ReplaceAll(stream, "/", ".") + "@" + commit[:min(12, len(commit))]
}
