package simulate

// FleetSettings say how nodes behave that hold the data.
type FleetSettings struct {
	Dropout    float64 `json:"dropout,omitempty" yaml:"dropout"`       // share of a cohort that is never heard of again in a round
	Stragglers float64 `json:"stragglers,omitempty" yaml:"stragglers"` // share of a cohort that does not manage all local epochs
	Partial    bool    `json:"partial,omitempty" yaml:"partial"`       // what stragglers manage counts; otherwise they are late
}
