package main

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"choir.example/model"
	"choir.example/privacy/audit"
	choirv1 "choir.example/proto/choir/v1"
)

// exported fetches the audit log and verifies it under the context's root: what does not verify is not shown.
func (f *federation) exported(ctx context.Context, t *terminal) ([]byte, []audit.Record, error) {
	stream, err := f.operators().GetBundle(ctx, &choirv1.BundleRequest{})
	if err != nil {
		return nil, nil, said(err)
	}
	shown := newMeter(t.err, "fetching the audit log")
	b, err := readBlob(stream.Recv, shown.bytes)
	shown.finish()
	if err != nil {
		return nil, nil, err
	}
	if r := audit.Verify(b, f.Root, now()); !r.OK {
		return nil, nil, fmt.Errorf("the audit log that came does not verify: %s", failures(r))
	}
	bundle, err := audit.DecodeBundle(b)
	if err != nil {
		return nil, nil, err
	}
	records, err := bundle.Decoded()
	return b, records, err
}

// auditRounds is `choir audit rounds`.
type auditRounds struct {
	contextFlag
	outputFlag
	Job string `help:"Only rounds of this job." placeholder:"NAME"`
}

// Help is what --help explains.
func (auditRounds) Help() string {
	return `Fetches the audit log, verifies it under the root of the context, and lists the attempts at rounds that are recorded.

Example: choir audit rounds --job purchase`
}

// auditedRound is one attempt at a round, gathered from its records.
type auditedRound struct {
	Job     string `json:"job"`
	Round   uint64 `json:"round"`
	Attempt uint32 `json:"attempt"`
	Kind    string `json:"kind"`
	State   string `json:"state"`
	Cohort  int    `json:"cohort"`
	Count   uint64 `json:"accepted"`
	Weight  int64  `json:"weight"`
	Model   string `json:"model,omitempty"`
	Reason  string `json:"reason,omitempty"`
	First   int    `json:"record"` // number of its first record
}

// rounds gathers attempts in the order in which they were opened.
func rounds(records []audit.Record, job string) []*auditedRound {
	out := []*auditedRound{}
	find := func(job string, round uint64, attempt uint32) *auditedRound {
		for _, r := range slices.Backward(out) {
			if r.Job == job && r.Round == round && r.Attempt == attempt {
				return r
			}
		}
		return &auditedRound{} // of a job that was not asked for
	}
	for i, r := range records {
		switch r := r.(type) {
		case *audit.RoundOpened:
			if job == "" || r.Job == job {
				out = append(out, &auditedRound{Job: r.Job, Round: r.Round, Attempt: r.Attempt, State: "open", Cohort: len(r.Cohort), First: i,
					Kind: roundKind(choirv1.RoundKind(r.RoundKind))})
			}
		case *audit.RoundCut:
			a := find(r.Job, r.Round, r.Attempt)
			a.State, a.Count, a.Weight = "cut", r.Count, r.Weight
		case *audit.RoundClosed:
			a := find(r.Job, r.Round, r.Attempt)
			a.State, a.Count, a.Weight = "closed", r.Count, r.Weight
			if r.Model != [32]byte{} {
				a.Model = hex.EncodeToString(r.Model[:])
			}
		case *audit.RoundAbandoned:
			a := find(r.Job, r.Round, r.Attempt)
			a.State, a.Reason = "abandoned", r.Reason
		}
	}
	return out
}

// Run lists rounds.
func (c *auditRounds) Run(ctx context.Context, t *terminal) error {
	f, err := c.open(t)
	if err != nil {
		return err
	}
	_, records, err := f.exported(ctx, t)
	if err != nil {
		return err
	}
	all := rounds(records, c.Job)
	if c.json() {
		return printJSON(t.out, map[string]any{"records": len(records), "rounds": all})
	}
	tab := newTable("JOB", "ROUND", "ATTEMPT", "KIND", "STATE", "COHORT", "ACCEPTED", "WEIGHT", "MODEL", "REASON")
	for _, r := range all {
		tab.add(r.Job, r.Round, r.Attempt, r.Kind, r.State, r.Cohort, r.Count, r.Weight, r.Model[:min(len(r.Model), 12)], r.Reason)
	}
	return tab.print(t.out, "no rounds")
}

// auditShow is `choir audit show`.
type auditShow struct {
	contextFlag
	outputFlag
	Round uint64 `arg:"" help:"The round's number."`
	Job   string `help:"The job whose round it is; needed when several jobs have one of this number." placeholder:"NAME"`
}

// Help is what --help explains.
func (auditShow) Help() string {
	return `Fetches the audit log, verifies it under the root of the context, and shows every record of a round: whom it invited, whose
updates count, what it made.

Example: choir audit show 7 --job purchase`
}

// Run shows a round's records.
func (c *auditShow) Run(ctx context.Context, t *terminal) error {
	f, err := c.open(t)
	if err != nil {
		return err
	}
	_, records, err := f.exported(ctx, t)
	if err != nil {
		return err
	}
	job, err := c.job(rounds(records, c.Job))
	if err != nil {
		return err
	}
	type numbered struct {
		Record int             `json:"record"`
		Kind   string          `json:"kind"`
		Fields json.RawMessage `json:"fields"`
	}
	out := []numbered{}
	for i, r := range records {
		if j, n, ok := roundOf(r); ok && j == job && n == c.Round {
			fields, err := json.Marshal(readable(reflect.ValueOf(r).Elem()))
			if err != nil {
				return err
			}
			out = append(out, numbered{i, r.Kind().String(), fields})
		}
	}
	if c.json() {
		return printJSON(t.out, map[string]any{"job": job, "round": c.Round, "records": out})
	}
	fmt.Fprintf(t.out, "job %s, round %d\n", job, c.Round)
	for _, n := range out {
		if _, err := fmt.Fprintf(t.out, "%6d  %-16s %s\n", n.Record, n.Kind, n.Fields); err != nil {
			return err
		}
	}
	return nil
}

// job is the one job that has the round.
func (c *auditShow) job(all []*auditedRound) (string, error) {
	var jobs []string
	for _, r := range all {
		if r.Round == c.Round && !slices.Contains(jobs, r.Job) {
			jobs = append(jobs, r.Job)
		}
	}
	switch len(jobs) {
	case 0:
		return "", &hinted{fmt.Errorf("no round %d is recorded", c.Round), "choir audit rounds lists the rounds"}
	case 1:
		return jobs[0], nil
	}
	return "", &usageError{fmt.Sprintf("jobs %s have a round %d", strings.Join(jobs, ", "), c.Round), "name one with --job"}
}

// roundOf is the round a record is about.
func roundOf(r audit.Record) (job string, round uint64, ok bool) {
	v := reflect.ValueOf(r).Elem()
	j, n := v.FieldByName("Job"), v.FieldByName("Round")
	if !j.IsValid() || !n.IsValid() {
		return "", 0, false
	}
	return j.String(), n.Uint(), true
}

// readable is a record for people: digests in hex, names in lower case, kinds by name, the loss as the mean of an example
// in nat; the job and round are left out, and digests of what there is not.
func readable(v reflect.Value) any {
	switch v.Kind() {
	case reflect.Struct:
		out := map[string]any{}
		for i := range v.NumField() {
			name, field := v.Type().Field(i).Name, v.Field(i)
			switch {
			case name == "Job" || name == "Round" || field.Kind() == reflect.Array && field.IsZero():
			case name == "RoundKind":
				out["kind"] = roundKind(choirv1.RoundKind(field.Uint()))
			case name == "EvalLoss":
				mean := model.Evaluation{Examples: v.FieldByName("EvalExamples").Int(), Loss: field.Int()}.MeanLoss()
				out["evalLoss"] = rounded(mean)
			default:
				out[strings.ToLower(name[:1])+name[1:]] = readable(field)
			}
		}
		return out
	case reflect.Array: // a digest
		b := make([]byte, v.Len())
		reflect.Copy(reflect.ValueOf(b), v)
		return hex.EncodeToString(b)
	case reflect.Slice:
		if v.Type().Elem().Kind() == reflect.Uint8 {
			return hex.EncodeToString(v.Bytes())
		}
		out := []any{}
		for i := range v.Len() {
			out = append(out, readable(v.Index(i)))
		}
		return out
	}
	return v.Interface()
}

// auditExport is `choir audit export`.
type auditExport struct {
	contextFlag
	outputFlag
	File  string `arg:"" help:"The bundle to write." type:"path"`
	Force bool   `help:"Write over a file that exists."`
}

// Help is what --help explains.
func (auditExport) Help() string {
	return `Writes the audit log with a head signed by a majority of the coordinators: what choir audit verify checks offline.

Example: choir audit export run.bundle`
}

// Run exports the log.
func (c *auditExport) Run(ctx context.Context, t *terminal) error {
	f, err := c.open(t)
	if err != nil {
		return err
	}
	b, records, err := f.exported(ctx, t)
	if err != nil {
		return err
	}
	if err := writeNew(c.File, b, c.Force); err != nil {
		return err
	}
	if c.json() {
		return printJSON(t.out, map[string]any{"file": c.File, "records": len(records), "bytes": len(b), "root": f.Root})
	}
	_, err = fmt.Fprintf(t.out, "%s: %d records, %d bytes; check it with choir audit verify %s --root %s\n", c.File, len(records), len(b), c.File, f.Root)
	return err
}
