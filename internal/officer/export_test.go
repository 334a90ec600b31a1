// SPDX-License-Identifier: Apache-2.0

package officer

// RiskKey stands in front of each line of risk.
const RiskKey = riskKey

// MostFiles is how many files a page lists.
const MostFiles = mostFiles
