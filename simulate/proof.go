package simulate

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"choir.example/privacy/audit"
	"choir.example/simulate/recount"
)

// audit exports the bundle and verifies it offline.
func (d *demo) audit(ctx context.Context) (err error) {
	d.progress("exporting and verifying the audit log")
	if d.bundle, err = d.f.Bundle(ctx); err != nil {
		return fmt.Errorf("export audit log: %w", err)
	}
	report := audit.Verify(d.bundle, d.f.Fingerprint(), time.Now())
	d.result.Audit = DemoAudit{Records: report.Records, Verified: report.OK}
	for _, c := range report.Checks {
		if !c.OK {
			d.result.Problems = append(d.result.Problems, "audit: "+c.Name+": "+c.Detail)
		}
	}
	dir := filepath.Join(d.cfg.Dir, "audit")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("keep audit log: %w", err)
	}
	return errors.Join(os.WriteFile(filepath.Join(dir, "run.bundle"), d.bundle, 0o600),
		os.WriteFile(filepath.Join(dir, "root.fingerprint"), []byte(d.f.Fingerprint()+"\n"), 0o600))
}

// recount adds up again what the nodes hold receipts for.
func (d *demo) recount(ctx context.Context) error {
	d.progress("recounting the nodes' receipts")
	b, err := audit.DecodeBundle(d.bundle)
	if err != nil {
		return err
	}
	records, err := b.Decoded()
	if err != nil {
		return err
	}
	d.tally = d.settled(ctx, records)
	for _, p := range d.tally.Problems {
		d.result.Problems = append(d.result.Problems, "recount: "+p)
	}
	d.result.Failover = DemoFailover{Receipts: d.tally.Receipts, Counted: d.tally.Counted, Lost: d.tally.Lost, Twice: d.tally.Twice}
	if d.kill == nil {
		return nil
	}
	round, took, ok := d.kill.Failover()
	if !ok {
		d.result.Problems = append(d.result.Problems, "the leader was not killed: the moment for it never came")
		return nil
	}
	d.result.Failover.Round, d.result.Failover.Seconds, d.result.Failover.Victim = round, took.Seconds(), d.kill.Victim()
	return nil
}

// receiptPatience is how long a node may take to hold the receipt of an update that is counted.
const receiptPatience = 10 * time.Second

// settled recounts when each counted update's receipt has come to its node: a job is finished before the last of them
// have. One that does not come in time is missing in the tally.
func (d *demo) settled(ctx context.Context, records []audit.Record) recount.Tally {
	late := time.NewTimer(receiptPatience)
	defer late.Stop()
	for {
		d.mu.Lock()
		held := slices.Clone(d.held)
		d.mu.Unlock()
		tally := recount.Recount(held, records)
		if tally.Receipts >= tally.Counted {
			return tally
		}
		select {
		case <-d.received:
		case <-late.C:
			return tally
		case <-ctx.Done():
			return tally
		}
	}
}

// histogramError bounds how far the AUC of a summed score histogram may lie from the exact one.
const histogramError = 0.0005

// judge adds what must not be.
func (d *demo) judge() {
	if t := d.tally; !t.OK() || t.Receipts != t.Counted || t.Counted == 0 {
		d.result.Problems = append(d.result.Problems, fmt.Sprintf("%d receipts, %d counted, %d lost, %d twice", t.Receipts, t.Counted, t.Lost, t.Twice))
	}
	if d.result.HistogramGap > histogramError {
		d.result.Problems = append(d.result.Problems, fmt.Sprintf("the AUC of summed histograms is %.6f off the exact one, want at most %v",
			d.result.HistogramGap, histogramError))
	}
	if d.result.Rounds != d.cfg.Rounds {
		d.result.Problems = append(d.result.Problems, fmt.Sprintf("%d of %d rounds committed", d.result.Rounds, d.cfg.Rounds))
	}
}

// write writes the page.
func (d *demo) write() error {
	var page bytes.Buffer
	if err := WriteReport(&page, d.result); err != nil {
		return err
	}
	if err := os.WriteFile(d.cfg.Report, page.Bytes(), 0o600); err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	return nil
}
