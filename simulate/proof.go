package simulate

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
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
func (d *demo) recount(context.Context) error {
	b, err := audit.DecodeBundle(d.bundle)
	if err != nil {
		return err
	}
	records, err := b.Decoded()
	if err != nil {
		return err
	}
	d.mu.Lock()
	tally := recount.Recount(d.held, records)
	d.mu.Unlock()
	for _, p := range tally.Problems {
		d.result.Problems = append(d.result.Problems, "recount: "+p)
	}
	if d.kill == nil {
		return nil
	}
	round, took, ok := d.kill.Failover()
	if !ok {
		d.result.Problems = append(d.result.Problems, "the leader was not killed: the moment for it never came")
	}
	d.result.Failover = &DemoFailover{
		Round: round, Seconds: took.Seconds(), Receipts: tally.Receipts, Counted: tally.Counted, Lost: tally.Lost,
		Twice: tally.Twice, Victim: d.kill.Victim(),
	}
	return nil
}

// histogramError bounds how far the AUC of a summed score histogram may lie from the exact one.
const histogramError = 0.0005

// judge adds what must not be.
func (d *demo) judge() {
	if f := d.result.Failover; f != nil && (f.Lost != 0 || f.Twice != 0 || f.Receipts != f.Counted) {
		d.result.Problems = append(d.result.Problems, fmt.Sprintf("%d receipts, %d counted, %d lost, %d twice", f.Receipts, f.Counted, f.Lost, f.Twice))
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
