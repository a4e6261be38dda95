package simulate

import (
	"context"
	"fmt"
	"math"
	"slices"
	"time"

	"choir.example/model"
	"choir.example/model/data"
	choirv1 "choir.example/proto/choir/v1"
)

// measure fetches each released variant and measures it on the pooled held-out rows.
func (d *demo) measure(ctx context.Context) error {
	d.progress("measuring the variants")
	rel, err := d.f.Operator().GetRelease(ctx, &choirv1.ReleaseRequest{Model: d.spec.Model})
	if err != nil {
		return fmt.Errorf("get release: %w", err)
	}
	held := pool(d.parts).Held
	for _, v := range rel.Variants {
		if !v.Published {
			d.result.Problems = append(d.result.Problems, fmt.Sprintf("variant %s was withheld: %s", v.Name, v.Reason))
			continue
		}
		body, err := d.f.Blob(ctx, v.Blob)
		if err != nil {
			return fmt.Errorf("get variant %s: %w", v.Name, err)
		}
		m, err := model.Decode(body)
		if err != nil {
			return fmt.Errorf("variant %s: %w", v.Name, err)
		}
		score := Measure(m, held)
		lat := latency(m, held)
		found := DemoVariant{
			Name: v.Name, Bytes: len(body), AUC: score.AUC, Accuracy: score.Accuracy, P50: lat.P50, P99: lat.P99,
			Digest: fmt.Sprintf("%x", v.Blob),
		}
		d.result.Released = append(d.result.Released, found)
		if v.Name != "student" {
			d.result.Variants = append(d.result.Variants, found)
		}
		if v.Name == "float32" {
			d.result.Metrics.Federated = score
			d.point(d.cfg.Rounds, v.Evaluation)
			d.result.HistogramGap = histogramGap(m, d.parts)
		}
	}
	var bytes, updates int64
	for _, p := range d.result.Sent {
		bytes, updates = bytes+p.Bytes, updates+int64(p.Updates)
	}
	d.result.Uplink = bytes / max(updates, 1)
	return nil
}

// histogramGap is how far the AUC of summed histograms is off the exact one, on the pooled validation rows, where rounds
// measure.
func histogramGap(m *model.Model, parts []data.Parts) float64 {
	var sum model.Evaluation
	for _, p := range parts {
		sum.Add(m.Evaluate(p.Validation))
	}
	return math.Abs(sum.AUC() - Measure(m, pool(parts).Validation).AUC)
}

// Latency is a distribution of times in microseconds.
type Latency struct{ P50, P99 float64 }

// latency times single predictions, features included, in this goroutine.
func latency(m *model.Model, rows []data.Row) Latency {
	p := m.Predictor()
	x, z := make([]float32, m.Network.Inputs()), make([]float32, 1)
	times := make([]time.Duration, 0, 4000)
	for i := range cap(times) + 200 {
		start := time.Now()
		m.Statistics.Features(rows[i%len(rows)], x)
		p.Predict(x, z)
		if i >= 200 { // the first warm the caches
			times = append(times, time.Since(start))
		}
	}
	return quantiles(times)
}

func quantiles(times []time.Duration) Latency {
	slices.Sort(times)
	at := func(q float64) float64 {
		return float64(times[min(int(q*float64(len(times))), len(times)-1)].Nanoseconds()) / 1e3
	}
	return Latency{at(0.5), at(0.99)}
}
