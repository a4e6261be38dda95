package simulate

import "fmt"

// DemoResult is what the demo found. Its JSON form is a contract for scripts.
type DemoResult struct {
	Seed         uint64         `json:"seed"`
	Coordinators int            `json:"coordinators"`
	Nodes        int            `json:"nodes"`
	Rounds       uint64         `json:"rounds_committed"`
	Seconds      float64        `json:"seconds"`
	Model        DemoModel      `json:"model"`
	Metrics      DemoMetrics    `json:"metrics"`
	Variants     []DemoVariant  `json:"variants"`
	Uplink       int64          `json:"uplink_bytes_per_node_round"`
	Failover     DemoFailover   `json:"failover"`
	Prediction   DemoPrediction `json:"prediction"`
	Audit        DemoAudit      `json:"audit"`
	Report       string         `json:"report"`

	Curve        []CurvePoint  `json:"-"` // from the untrained model to the finished one, for the page
	Local        Validated     `json:"-"` // mean of the models that saw one node's data each, beside the curve
	Central      Validated     `json:"-"` // the model that saw all data
	Sent         []SentPoint   `json:"-"` // by training round
	Released     []DemoVariant `json:"-"` // every variant, also those the contract does not name
	HTTP         Latency       `json:"-"` // of the served variant over HTTP
	HTTPVariant  string        `json:"-"`
	HistogramGap float64       `json:"-"` // exact AUC against the AUC of the summed histogram
	Answer       string        `json:"-"` // the prediction as the node gave it
	Request      string        `json:"-"`
	Problems     []string      `json:"-"` // what is not as it must be; empty if all is well
}

// Alone names the models that saw the data of one node each.
func (r *DemoResult) Alone() string {
	if r.Nodes == regions {
		return fmt.Sprintf("each region alone (mean of %d)", r.Nodes)
	}
	return fmt.Sprintf("each node alone (mean of %d)", r.Nodes)
}

// regions is how many regions the built-in data has.
const regions = 9

// DemoModel names the released model.
type DemoModel struct {
	Name    string `json:"name"`
	Version uint64 `json:"version"`
	Digest  string `json:"digest"`
}

// DemoMetrics are the scores on the pooled held-out rows: of the federation's model, the mean of the models that each
// saw one node's data alone, and the model that saw all data in one place.
type DemoMetrics struct {
	Federated Score `json:"federated"`
	LocalMean Score `json:"local_mean"`
	Central   Score `json:"central"`
}

// DemoVariant is one released form of the model, measured on the pooled held-out rows and in this process on one core.
type DemoVariant struct {
	Name     string  `json:"name"`
	Bytes    int     `json:"bytes"`
	AUC      float64 `json:"auc"`
	P50      float64 `json:"p50_us"`
	P99      float64 `json:"p99_us"`
	Accuracy float64 `json:"-"`
	Digest   string  `json:"-"` // hex, as predictions name it
}

// DemoFailover is what the death of the leader cost, and the recount of all rounds. Round and Seconds are 0 where nobody
// was killed; the recount is made all the same.
type DemoFailover struct {
	Round    uint64  `json:"round"`
	Seconds  float64 `json:"seconds"` // from the cut to the first batch under a new term
	Receipts int     `json:"receipts"`
	Counted  int     `json:"counted"`
	Lost     int     `json:"lost"`
	Twice    int     `json:"twice"`
	Victim   string  `json:"-"` // who was killed, empty if nobody
}

// DemoPrediction is a node's answer over HTTP.
type DemoPrediction struct {
	ModelVersion string  `json:"model_version"`
	Probability  float64 `json:"probability"`
}

// DemoAudit is the outcome of the offline verification.
type DemoAudit struct {
	Records  int  `json:"records"`
	Verified bool `json:"verified"`
}

// CurvePoint is how good the model was on the nodes' validation parts after some training rounds: the sums that the
// federation published.
type CurvePoint struct {
	Round uint64 // training rounds that made it; 0: untrained
	Validated
}

// Validated is how well a model does on the nodes' validation parts.
type Validated struct {
	AUC  float64 // from the summed histogram
	Loss float64 // mean cross entropy, in nat
}

// SentPoint is what a training round cost the nodes.
type SentPoint struct {
	Round   uint64
	Updates int
	Bytes   int64 // that all nodes sent meanwhile, TLS and all
}
