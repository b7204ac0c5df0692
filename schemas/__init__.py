"""What may cross an agency's border: topics, contracts, code sets, codecs. Imports nothing else of govbus."""
