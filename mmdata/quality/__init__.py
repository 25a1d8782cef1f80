"""How good demonstrations and labels are: demonstration scores, agreement, sampling."""
