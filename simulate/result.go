package simulate

import "fmt"

// DemoResult is what the demo found. Its JSON form is a contract for scripts.
type DemoResult struct {
	Seed         uint64           `json:"seed"`
	Coordinators int              `json:"coordinators"`
	Nodes        int              `json:"nodes"`
	Rounds       uint64           `json:"rounds_committed"`
	Seconds      float64          `json:"seconds"`
	Model        DemoModel        `json:"model"`
	Metrics      map[string]Score `json:"metrics"`
	Variants     []DemoVariant    `json:"variants"`
	Uplink       int64            `json:"uplink_bytes_per_node_round"`
	Failover     *DemoFailover    `json:"failover"`
	Prediction   DemoPrediction   `json:"prediction"`
	Audit        DemoAudit        `json:"audit"`
	Report       string           `json:"report"`

	Curve        []CurvePoint  `json:"-"` // by round, for the page
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

// DemoVariant is one released form of the model, measured on the pooled held-out rows and in this process on one core.
type DemoVariant struct {
	Name     string  `json:"name"`
	Bytes    int     `json:"bytes"`
	AUC      float64 `json:"auc"`
	P50      float64 `json:"p50_us"`
	P99      float64 `json:"p99_us"`
	Accuracy float64 `json:"-"`
}

// DemoFailover is what the death of the leader cost, and the recount of all rounds.
type DemoFailover struct {
	Round    uint64  `json:"round"`
	Seconds  float64 `json:"seconds"`
	Receipts int     `json:"receipts"`
	Counted  int     `json:"counted"`
	Lost     int     `json:"lost"`
	Twice    int     `json:"twice"`
	Victim   string  `json:"-"`
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

// CurvePoint is one closed training round: how the model it started from did on the nodes' validation parts.
type CurvePoint struct {
	Round     uint64
	AUC, Loss float64
	Accepted  int
	Uplink    int64 // bytes that all nodes sent during the round, TLS and all
}
